from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods.peft_model import with_peft


@method(
    learning_rate=3e-3,
    paper="arXiv:2101.00190",
    gradient_checkpointing="its prefix is a key-value cache, which checkpointing recomputes without",
)
def prefix_tuning(model: Any, *, tokens: int = 32, projection: bool = True, hidden: int = 512) -> Adapted:
    """Prefix tuning: trained keys and values before the input in every layer, made by an MLP if `projection`."""
    from peft import PrefixTuningConfig

    config = PrefixTuningConfig(num_virtual_tokens=tokens, prefix_projection=projection, encoder_hidden_size=hidden)
    facts = model.config
    if facts.is_encoder_decoder:
        # The prefix is the decoder's; the library would take its measures from the encoder and from the hidden size.
        heads = getattr(facts, "decoder_attention_heads", None) or facts.num_heads
        config.num_layers = getattr(facts, "num_decoder_layers", None) or facts.decoder_layers
        config.num_attention_heads = heads
        config.token_dim = heads * getattr(facts, "d_kv", facts.d_model // heads)
    return with_peft(model, config)
