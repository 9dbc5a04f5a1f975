"""One call of an adapted network, for all methods and for training and answering alike.

Soft prompts and prefixes are put before the input here. With left padding they go between the padding and the text:
[padding | prompt | text], where a position is counted from the first virtual token.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from peftbench.methods import Adapted


def accepts(network: torch.nn.Module, argument: str) -> bool:
    """Whether a network's forward takes an argument."""
    return argument in inspect.signature(type(network).forward).parameters


def pad(rows: list[list[int]], value: int, side: str, on: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids to a tensor [rows, longest] and its attention mask, padded on one side."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), value)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        span = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, span] = torch.tensor(row, dtype=torch.long)
        mask[i, span] = 1
    return ids.to(on), mask.to(on)


def forward(
    adapted: Adapted, ids: Tensor, mask: Tensor | None, keep: Tensor | None = None, *, cached: bool = False
) -> tuple[Tensor, Any, Tensor | None]:
    """Logits, cache and full attention mask of an input.

    `ids` [batch, length] and `mask` [batch, length], padded on either side, or no mask for an unpadded input. `keep`
    [batch, length], boolean: the positions whose logits are wanted, which come back as [positions, vocabulary]; without
    it, with `cached`, the last position only [batch, 1, vocabulary], else all positions.
    """
    network = adapted.network
    inputs: dict[str, Any] = {}
    virtual = 0
    if adapted.soft_prompt is not None:
        inputs["inputs_embeds"], mask, virtual = _with_prompt(adapted, ids, mask)
    else:
        inputs["input_ids"] = ids
    if adapted.prefix is not None:
        inputs["past_key_values"] = adapted.prefix(len(ids))
        mask = _after_ones(mask, inputs["past_key_values"].get_seq_length(), ids)
    if mask is not None:
        inputs["attention_mask"] = mask
        if accepts(network, "position_ids"):
            seen = mask.shape[1] - ids.shape[1] - virtual
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, seen:]
    elif ids.is_meta:
        # Without a mask transformers looks into the positions for packed rows, and meta tensors hold no values.
        seen = inputs["past_key_values"].get_seq_length() if adapted.prefix is not None else 0
        width = ids.shape[1] + virtual
        inputs["attention_mask"] = torch.ones((1, 1, width, seen + width), dtype=torch.bool, device="meta")
    wanted: Tensor | int = 1 if cached else 0
    if keep is not None:
        wanted = torch.nn.functional.pad(keep, (virtual, 0))
    if accepts(network, "logits_to_keep"):
        out = network(**inputs, use_cache=cached or adapted.prefix is not None, logits_to_keep=wanted)
        return out.logits, out.past_key_values, mask
    out = network(**inputs, use_cache=cached or adapted.prefix is not None)
    logits = out.logits[wanted] if isinstance(wanted, Tensor) else out.logits[:, -wanted:]
    return logits, out.past_key_values, mask


def advance(adapted: Adapted, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Logits [batch, length, vocabulary] of tokens that follow a cache; `mask` covers the cache and them."""
    inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
    if accepts(adapted.network, "position_ids"):
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = adapted.network(**inputs, use_cache=True)
    return out.logits, out.past_key_values


def _after_ones(mask: Tensor | None, width: int, ids: Tensor) -> Tensor | None:
    if mask is None:
        return None
    return torch.cat([torch.ones(len(ids), width, dtype=mask.dtype, device=mask.device), mask], 1)


def _with_prompt(adapted: Adapted, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, int]:
    """Embeddings with the soft prompt before the text, their mask, and the prompt's length."""
    assert adapted.soft_prompt is not None
    text = adapted.network.get_input_embeddings()(ids)
    virtual = adapted.soft_prompt(len(ids)).to(text.dtype)
    embeddings = torch.cat([virtual, text], 1)
    mask = _after_ones(mask, virtual.shape[1], ids)
    if mask is not None and not bool(mask[:, virtual.shape[1]].all()):
        # Left padding: a stable sort by the mask puts the padding first and keeps prompt and text in order.
        order = torch.argsort(mask, dim=1, stable=True)
        embeddings = embeddings.gather(1, order[:, :, None].expand_as(embeddings))
        mask = mask.gather(1, order)
    return embeddings, mask, virtual.shape[1]
