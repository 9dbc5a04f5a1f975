from collections.abc import Sequence
from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods.peft_model import with_peft
from peftbench.models.places import places


@method(learning_rate=2e-4, paper="arXiv:2305.14314", quantise="nf4")
def qlora(
    model: Any, *, rank: int = 64, alpha: int = 16, dropout: float = 0.1, modules: Sequence[str] = ("all-linear",)
) -> Adapted:
    """QLoRA: LoRA on every linear layer of a base whose weights are four-bit normal floats, constants quantised too.

    Trained by AdamW as all methods are; the paper's moves its states to the host where a GPU's memory runs out, which
    would hide what is measured here.
    """
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=places(model, modules))
    return with_peft(model, config, mergeable=True)
