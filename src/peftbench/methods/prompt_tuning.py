from typing import Any, Literal

from peftbench.methods import Adapted, method
from peftbench.methods._peft_model import with_peft


@method(learning_rate=3e-2, paper="arXiv:2104.08691")
def prompt_tuning(
    model: Any, *, tokens: int = 100, init: Literal["SAMPLE_VOCAB", "RANDOM"] = "SAMPLE_VOCAB"
) -> Adapted:
    """Prompt tuning: virtual tokens at the input, started from random words of the vocabulary."""
    from peft import PromptTuningConfig

    # For an encoder–decoder the library would create two prompts and use only the encoder's.
    config = PromptTuningConfig(num_virtual_tokens=tokens, prompt_tuning_init=init, num_transformer_submodules=1)
    return with_peft(model, config)
