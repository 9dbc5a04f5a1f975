"""Calls of an adapted decoder-only network, for all methods and for training and answering alike.

Soft prompts and prefixes are put before the input here. With left padding they go between the padding and the text:
[padding | prompt | text], where a position is counted from the first virtual token. What an encoder–decoder does
instead stands in `seq2seq.py`, under the same names.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from peftbench.engine.tokenization import Encoded, Encoder
from peftbench.methods import Adapted

auto: Any = AutoModelForCausalLM
encoder = Encoder
CACHES = ("past_key_values", "cache_params", "state")
"""What networks call the argument, and the field of their output, that holds what they have read: keys and values, or
the states of recurrent layers."""


@dataclass
class Reading:
    """A batch of prompts as read, and of what has been answered: all that is needed to go on.

    `mask` [batch, positions] is that of the input and, in a decoder, of what follows it; `source` is what an encoder
    made of the input, as its output; `padded`: whether some prompts have padding before them.
    """

    cache: Any
    mask: Tensor
    source: Any = None
    padded: bool = False

    def repeat(self, times: int | Tensor) -> None:
        """Every row so many times, one after the other."""
        rows = torch.arange(len(self.mask), device=self.mask.device).repeat_interleave(times)
        self.mask = self.mask[rows]
        if isinstance(self.cache, list):
            self.cache = [state.index_select(0, rows) for state in self.cache]
        else:
            # What beam search asks of a cache is the one thing that all kinds of caches can do with their rows.
            self.cache.reorder_cache(rows)
        if self.source is not None:
            self.source["last_hidden_state"] = self.source["last_hidden_state"][rows]


def accepts(network: torch.nn.Module, argument: str) -> bool:
    """Whether a network's forward takes an argument."""
    return argument in _parameters(type(network).forward)


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def cache_name(network: torch.nn.Module) -> str | None:
    """What a network calls its cache; none if it keeps nothing of what it has read."""
    return next((name for name in CACHES if accepts(network, name)), None)


def device_of(adapted: Adapted) -> torch.device:
    """Where an adapted network is."""
    parameter: Tensor = next(iter(adapted.network.parameters()))
    return parameter.device


def pad(rows: Sequence[list[int]], value: int, side: str, on: torch.device) -> tuple[Tensor, Tensor]:
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
    adapted: Adapted, ids: Tensor, mask: Tensor | None, keep: Tensor | int | None = None, *, cached: bool = False
) -> tuple[Tensor, Any, Tensor | None]:
    """Logits, cache (none if the network has none) and full attention mask of an input.

    `ids` [batch, length] and `mask` [batch, length], padded on either side, or no mask for an unpadded input. `keep`
    [batch, length], boolean: the positions whose logits are wanted, which come back as [positions, vocabulary]; as a
    number, so many last positions [batch, number, vocabulary]; without it, with `cached`, the last one, else all.
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
        mask = after_ones(mask, inputs["past_key_values"].get_seq_length(), ids)
    if ids.is_meta:
        # Of a mask, or of positions where there is none, transformers asks values, and meta tensors hold none.
        seen = inputs["past_key_values"].get_seq_length() if adapted.prefix is not None else 0
        width = ids.shape[1] + virtual
        inputs["attention_mask"] = torch.ones((len(ids), 1, width, seen + width), dtype=torch.bool, device="meta")
        if accepts(network, "position_ids"):
            inputs["position_ids"] = torch.arange(seen, seen + width, device="meta")[None]
    elif mask is not None:
        inputs["attention_mask"] = mask
        if accepts(network, "position_ids") and _padded_on_the_left(mask):
            seen = mask.shape[1] - ids.shape[1] - virtual
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, seen:]
    last = keep is None and cached and not ids.is_meta
    if last:
        # As a mask, not as a number: of a slice, torch multiplies each row with a copy of the head's weights.
        keep = torch.zeros_like(ids, dtype=torch.bool)
        keep[:, -1] = True
    wanted = torch.nn.functional.pad(keep, (virtual, 0)) if isinstance(keep, Tensor) else keep or 0
    if accepts(network, "use_cache"):
        inputs["use_cache"] = cached or adapted.prefix is not None
    if accepts(network, "logits_to_keep"):
        out = network(**inputs, logits_to_keep=wanted)
        return out.logits[:, None] if last else out.logits, _cache(network, out), mask
    out = network(**inputs)
    logits = out.logits[wanted] if isinstance(wanted, Tensor) else out.logits[:, -wanted:]
    return logits[:, None] if last else logits, _cache(network, out), mask


def _padded_on_the_left(mask: Tensor) -> bool:
    """Whether positions have to be given. Else the model counts them itself, from wherever it does: RoBERTa from 2."""
    return bool((mask[:, 1:] > mask[:, :-1]).any())


def _cache(network: torch.nn.Module, out: Any) -> Any:
    name = cache_name(network)
    return None if name is None else getattr(out, name, None)


def target_logits(adapted: Adapted, rows: Sequence[Encoded]) -> Tensor:
    """Logits [target tokens, vocabulary] of the target tokens of rows, one row after the other, and of no others."""
    on = device_of(adapted)
    ids, mask = pad([row.prompt + row.target for row in rows], 0, "right", on)
    if ids.is_meta:
        # No values tell one position from another: the rows of a rehearsal are of one length.
        return forward(adapted, ids, None, len(rows[0].target))[0].flatten(0, 1)
    targets, _ = pad([[0] * len(row.prompt) + [1] * len(row.target) for row in rows], 0, "right", on)
    keep = torch.nn.functional.pad(targets[:, 1:].bool(), (0, 1))
    logits: Tensor = forward(adapted, ids, mask, keep)[0]
    return logits


def read(adapted: Adapted, prompts: Sequence[list[int]]) -> tuple[Tensor, Reading]:
    """Logits [batch, vocabulary] of the first token after each prompt, and what is needed to go on."""
    ids, mask = pad(prompts, 0, "left", device_of(adapted))
    logits, cache, full = forward(adapted, ids, mask, cached=True)
    assert full is not None
    return logits[:, -1], Reading(cache, full, padded=len(set(map(len, prompts))) > 1)


def advance(adapted: Adapted, ids: Tensor, reading: Reading, valid: Tensor | None = None) -> Tensor:
    """Logits [batch, length, vocabulary] of tokens [batch, length] that follow what was read, and are read with it.

    `valid`: which of them are no padding, which stands on the right; by default all.
    """
    network, name = adapted.network, cache_name(adapted.network)
    if name is None or reading.cache is None:
        raise NotImplementedError(f"{type(network).__name__} gives no cache of what it has read")
    more = torch.ones_like(ids) if valid is None else valid
    reading.mask = torch.cat([reading.mask, more], 1)
    # A recurrent state has no positions: a mask is of what is read now.
    seen = reading.mask if name == "past_key_values" else more
    inputs = {"input_ids": ids, "attention_mask": seen, name: reading.cache}
    if accepts(network, "position_ids") and reading.padded:
        inputs["position_ids"] = (reading.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = network(**inputs, use_cache=True)
    reading.cache = _cache(network, out)
    logits: Tensor = out.logits
    return logits


def pass_over(adapted: Adapted, length: int) -> None:
    """One forward pass of one row of so many tokens, none of which needs to have a value."""
    forward(adapted, torch.zeros((1, length), dtype=torch.long, device=device_of(adapted)), None)


def positions(adapted: Adapted, rows: Sequence[Encoded], most: int) -> int:
    """How many positions the longest row takes up, with virtual tokens and an answer of up to `most` tokens."""
    return adapted.virtual_tokens + max(len(row.prompt) + max(len(row.target), most) for row in rows)


def after_ones(mask: Tensor | None, width: int, ids: Tensor) -> Tensor | None:
    """The mask of ids, if they have one, with virtual tokens before it."""
    if mask is None:
        return None
    return torch.cat([torch.ones(len(ids), width, dtype=mask.dtype, device=mask.device), mask], 1)


def _with_prompt(adapted: Adapted, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, int]:
    """Embeddings with the soft prompt before the text, their mask, and the prompt's length."""
    assert adapted.soft_prompt is not None
    text = adapted.network.get_input_embeddings()(ids)
    virtual = adapted.soft_prompt(len(ids)).to(text.dtype)
    embeddings = torch.cat([virtual, text], 1)
    mask = after_ones(mask, virtual.shape[1], ids)
    if mask is not None and not bool(mask[:, virtual.shape[1]].all()):
        # Left padding: a stable sort by the mask puts the padding first and keeps prompt and text in order.
        order = torch.argsort(mask, dim=1, stable=True)
        embeddings = embeddings.gather(1, order[:, :, None].expand_as(embeddings))
        mask = mask.gather(1, order)
    return embeddings, mask, virtual.shape[1]
