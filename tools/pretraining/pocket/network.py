"""The pocket model before it has read anything."""

import math
from typing import Any

VOCABULARY = 6144
FAST, SLOW = 6, 20
"""Rotations that tell one place from the next, and the first of those that hardly turn within a row."""
SHARPNESS = 24.0
"""About how much greater the attention logit of the token looked for is than those of others."""


def new_model(seed: int) -> Any:
    """A Llama-shaped decoder of 5.0 M parameters with random weights, but for two heads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
    look_up(model)
    return model


def look_up(model: Any) -> None:
    """Let two heads start as the pair that finds what followed a token the last time (an induction head).

    The first head of the first layer looks at the token before, whatever the tokens are, and passes on what it sees;
    the first head of the second layer looks for the place where that was the present token, and says what stands there
    (Olsson et al. 2022, arXiv 2209.11895). From random weights a model of this size did not find the pair in three
    million tokens of text; given it, it builds on it. To start attention near what training arrives at is an idea of
    Trockman and Kolter (2023, arXiv 2305.09828). All other outputs of layers start at zero, so that nothing drowns it.
    """
    import torch

    config, layers = model.config, model.model.layers
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    back, copy = layers[0].self_attn, layers[1].self_attn
    # A direction that all tokens share lets a query and a key be the same for all. In the tied head it adds the same
    # to every logit, which changes nothing. The others are where tokens are seen, passed on and copied.
    shared, seen, told, copied = torch.linalg.qr(torch.randn(width, width)).Q.T[: 1 + 3 * size].split([1] + [size] * 3)
    turn = 10000.0 ** (-torch.arange(FAST) * 2 / size)
    query, key = torch.zeros(size), torch.zeros(size)
    key[:FAST] = 1.0
    query[:FAST], query[size // 2 : size // 2 + FAST] = turn.cos(), -turn.sin()
    still = torch.tensor([*range(SLOW, size // 2), *range(size // 2 + SLOW, size)])
    back_scale = math.sqrt(SHARPNESS * math.sqrt(size)) / math.sqrt(width / 2)
    copy_scale = math.sqrt(SHARPNESS * math.sqrt(size) / len(still))
    with torch.no_grad():
        for layer in layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embeddings = model.model.embed_tokens.weight
        embeddings += embeddings.norm(dim=1).mean() * shared
        back.q_proj.weight[:size] = back_scale * torch.outer(query, shared[0])
        back.k_proj.weight[:size] = back_scale * torch.outer(key, shared[0])
        back.v_proj.weight[:size], back.o_proj.weight[:, :size] = seen, 0.16 * told.T
        copy.q_proj.weight[:size], copy.k_proj.weight[:size] = 0, 0
        copy.q_proj.weight[still] = copy_scale * seen[: len(still)]
        copy.k_proj.weight[still] = copy_scale * told[: len(still)]
        copy.v_proj.weight[:size], copy.o_proj.weight[:, :size] = copied, 0.5 * copied.T
