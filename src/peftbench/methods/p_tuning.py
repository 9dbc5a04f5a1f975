from typing import Any, Literal

from peftbench.methods import Adapted, method
from peftbench.methods._peft_model import with_peft


@method(learning_rate=3e-3, paper="arXiv:2103.10385")
def p_tuning(
    model: Any, *, tokens: int = 100, encoder: Literal["LSTM", "MLP"] = "LSTM", hidden: int = 768, layers: int = 2
) -> Adapted:
    """P-tuning: virtual tokens at the input, computed by a small LSTM or MLP."""
    from peft import PromptEncoderConfig

    config = PromptEncoderConfig(
        num_virtual_tokens=tokens,
        encoder_reparameterization_type=encoder,
        encoder_hidden_size=hidden,
        encoder_num_layers=layers,
        # For an encoder–decoder the library would create two prompts and use only the encoder's.
        num_transformer_submodules=1,
    )
    return with_peft(model, config)
