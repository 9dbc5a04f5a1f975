from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._peft_model import of_decoder, with_peft


@method(
    learning_rate=3e-3,
    paper="arXiv:2101.00190",
    gradient_checkpointing="its prefix is a key-value cache, which checkpointing recomputes without",
)
def prefix_tuning(model: Any, *, tokens: int = 32, projection: bool = True, hidden: int = 512) -> Adapted:
    """Prefix tuning: trained keys and values before the input in every layer, made by an MLP if `projection`."""
    from peft import PrefixTuningConfig

    shape: dict[str, Any] = {
        "num_virtual_tokens": tokens,
        "prefix_projection": projection,
        "encoder_hidden_size": hidden,
    }
    return with_peft(model, PrefixTuningConfig(**shape, **of_decoder(model.config)))
