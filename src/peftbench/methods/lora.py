from collections.abc import Sequence
from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods.peft_model import with_peft
from peftbench.models.places import places


@method(learning_rate=2e-4, paper="arXiv:2106.09685")
def lora(
    model: Any,
    *,
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.05,
    modules: Sequence[str] = ("k", "v", "down"),
) -> Adapted:
    """LoRA: low-rank updates of linear layers."""
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=places(model, modules))
    return with_peft(model, config, mergeable=True)
