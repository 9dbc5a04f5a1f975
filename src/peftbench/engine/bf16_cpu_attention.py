"""Attention in bfloat16 on a CPU, computed by products of matrices.

For short rows this is three to four times as fast as `scaled_dot_product_attention` of torch, whose backward pass in
bfloat16 is slow on a CPU with AVX512-BF16 (`docs/benchmarks.md`). Rows longer than `LONGEST` use the function of torch:
the memory of the products grows with the square of the length.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "bf16_cpu_attention"
LONGEST = 192
"""Maximum number of keys for which the products are used."""
KNOWN = {"dropout", "scaling", "is_causal", "position_ids", "sliding_window", "use_cache", "cache_position"}
"""Arguments that are used here, or that change nothing: windows and padding are in the mask."""


def bf16_cpu_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **asked: Any
) -> tuple[Tensor, None]:
    """Return the attention of queries [rows, heads, length, width] as [rows, length, heads, width].

    The arguments are those of attention functions of `transformers`, on a CPU. Attention with dropout, of long rows or
    in float32 goes to the function of torch.
    """
    if query.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        # As autocast does for torch's function.
        query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
    given = {name for name, argument in asked.items() if argument is not None and argument is not False}
    plain = query.dtype == torch.bfloat16 and not asked.get("dropout") and given <= KNOWN
    if not plain or key.shape[2] > LONGEST:
        out: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **asked)[0]
        return out, None
    causal = asked.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    return by_products(query, key, value, attention_mask, asked.get("scaling"), causal=causal), None


def by_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, *, causal: bool
) -> Tensor:
    """Return the attention as above, for as many keys and values as queries have heads.

    `mask`: true where a key is seen, or what is added to the scores; without it, `causal` hides later keys.
    """
    length, positions = query.shape[2], key.shape[2]
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    hidden = torch.finfo(scores.dtype).min
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    elif mask is not None:
        scores = scores.masked_fill(~mask, hidden)
    elif causal and length > 1:
        later = torch.ones(length, positions, dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, hidden)
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous()


def use_bf16_cpu_attention(network: Any) -> None:
    """Set this attention in a network that uses torch's attention and allows another one."""
    if network.config._attn_implementation == "sdpa" and network._can_set_attn_implementation():
        network.set_attn_implementation(NAME)


# Here and not when it is first used: a run that changes the process costs the process.
ALL_ATTENTION_FUNCTIONS.register(NAME, bf16_cpu_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
