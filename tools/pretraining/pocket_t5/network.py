"""The pocket encoder–decoder before it has read anything."""

import math
from typing import Any

EMBEDDING = 0.25
"""Standard deviation of the embeddings at the start. T5's is 1, from where they hardly move in so short a time."""
SHARPNESS = 24.0
"""About how much greater the attention logit of the token looked for is than those of others."""
BACK = 8.0
"""Attention logit of the token before."""


def new_model(seed: int, vocabulary: int) -> Any:
    """A T5 (v1.1, tied head) with random weights but for two heads; `vocabulary` entries of 256 numbers."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary,
            d_model=256,
            d_kv=64,
            d_ff=512,
            num_layers=4,
            num_decoder_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    # Said of a T5 in its generation settings too, from where `generate` takes it.
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 0
    look_up(model)
    return model


def look_up(model: Any) -> None:
    """Let two heads start as the pair that finds a token in the source and says what follows it there.

    The first head of the encoder looks at the token before and passes on what it sees; the first head of the first
    attention of the decoder to the source looks for the place where that was the decoder's present token, and says
    what stands there: what `pretraining.pocket.network` does for the decoder, across the two halves. All other
    outputs of layers start at zero, so that nothing drowns it.
    """
    import torch

    width, size = model.config.d_model, model.config.d_kv
    back = model.encoder.block[0].layer[0].SelfAttention
    copy = model.decoder.block[0].layer[1].EncDecAttention
    seen, told, copied = torch.linalg.qr(torch.randn(width, width)).Q.T[: 3 * size].split(size)
    scale = math.sqrt(SHARPNESS / size)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith((".o.weight", ".wo.weight")):
                weight.zero_()
        model.shared.weight *= EMBEDDING
        # Bucket 1 of the relative positions is the place before. The layers share the bias, so all have such a head.
        back.relative_attention_bias.weight[1, 0] += BACK
        back.q.weight[:size] = 0
        back.v.weight[:size], back.o.weight[:, :size] = seen, EMBEDDING * told.T
        copy.q.weight[:size], copy.k.weight[:size] = scale * seen, scale * told
        copy.v.weight[:size], copy.o.weight[:, :size] = copied, 0.5 * copied.T
