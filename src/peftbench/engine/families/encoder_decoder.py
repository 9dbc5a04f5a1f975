"""Calls of an adapted encoder–decoder: the functions of `forward.py` for a network that reads and answers apart.

The encoder reads the prompt, padded on the right; the decoder answers from its start token. A soft prompt stands before
the encoder's input, a prefix before the decoder's own keys and values, as in `peft`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from peftbench.core.registry import UserError
from peftbench.engine.families.decoder import Reading, after_ones, device_of, pad
from peftbench.engine.tokenization import Encoded, SourceEncoder
from peftbench.methods import Adapted

auto: Any = AutoModelForSeq2SeqLM
encoder = SourceEncoder


def target_logits(adapted: Adapted, rows: Sequence[Encoded]) -> Tensor:
    """Logits [target tokens, vocabulary] of the target tokens of rows, one row after the other."""
    on, start = device_of(adapted), start_token(adapted.network)
    if on.type == "meta":
        return _without_values(adapted, len(rows), len(rows[0].prompt), len(rows[0].target)).flatten(0, 1)
    inputs = _source(adapted, *pad([row.prompt for row in rows], 0, "right", on))
    # Nothing to the right is seen, so the padding of the decoder's input needs no mask.
    before, valid = pad([[start, *row.target[:-1]] for row in rows], 0, "right", on)
    inputs |= _prefix(adapted, len(rows))
    logits = adapted.network(**inputs, decoder_input_ids=before, use_cache=adapted.prefix is not None).logits
    kept: Tensor = logits[valid.bool()]
    return kept


def read(adapted: Adapted, prompts: Sequence[list[int]]) -> tuple[Tensor, Reading]:
    """Logits [batch, vocabulary] of the first token of each answer, and what is needed to go on."""
    inputs = _source(adapted, *pad(prompts, 0, "right", device_of(adapted)))
    source = adapted.network.get_encoder()(**inputs)
    mask = inputs["attention_mask"]
    reading = Reading(_prefix(adapted, len(prompts)).get("past_key_values"), mask, source)
    first = torch.full((len(prompts), 1), start_token(adapted.network), device=mask.device)
    return advance(adapted, first, reading)[:, -1], reading


def advance(adapted: Adapted, ids: Tensor, reading: Reading, _valid: Tensor | None = None) -> Tensor:
    """Logits [batch, length, vocabulary] of tokens [batch, length] that follow in the answers, padded on the right."""
    out = adapted.network(
        encoder_outputs=reading.source,
        attention_mask=reading.mask,
        decoder_input_ids=ids,
        past_key_values=reading.cache,
        use_cache=True,
    )
    reading.cache = out.past_key_values
    logits: Tensor = out.logits
    return logits


def pass_over(adapted: Adapted, length: int) -> None:
    """One forward pass of so many tokens through the encoder and one, the start token, through the decoder."""
    _without_values(adapted, 1, length, 1)


def _without_values(adapted: Adapted, rows: int, source: int, target: int) -> Tensor:
    """Logits [rows, target, vocabulary] of rows that are all of one length and need not hold values."""
    ids = torch.zeros((rows, max(source, target)), dtype=torch.long, device=device_of(adapted))
    inputs = _source(adapted, ids[:, :source], None) | _prefix(adapted, rows)
    length = source + (adapted.virtual_tokens if adapted.soft_prompt is not None else 0)
    inputs["attention_mask"] = torch.ones((rows, 1, 1, length), dtype=torch.bool, device=ids.device)
    seen = inputs["past_key_values"].get_seq_length() if adapted.prefix is not None else 0
    # A mask of two dimensions would be looked into, and meta tensors hold no values.
    mask = torch.ones((rows, 1, target, seen + target), dtype=torch.bool, device=ids.device)
    cached = adapted.prefix is not None
    out = adapted.network(**inputs, decoder_attention_mask=mask, decoder_input_ids=ids[:, :target], use_cache=cached)
    logits: Tensor = out.logits
    return logits


def positions(adapted: Adapted, rows: Sequence[Encoded], most: int) -> int:
    """How many positions the longest row takes up in either stack, with an answer of up to `most` tokens."""
    virtual = adapted.virtual_tokens
    source = max(len(row.prompt) for row in rows)
    target = max(most, *(len(row.target) for row in rows))
    return max(source + virtual, target) if adapted.soft_prompt is not None else max(source, target + virtual)


def start_token(network: Any) -> int:
    """The token that the decoder starts from. Raises `UserError` if the model's makers name none."""
    for config in (network.config, network.generation_config):
        found = getattr(config, "decoder_start_token_id", None)
        if found is not None:
            return int(found)
    raise UserError("the model's configuration has no decoder_start_token_id, so no answer can begin: add it")


def _source(adapted: Adapted, ids: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """What the encoder is called with: the text, or its embeddings after those of a soft prompt."""
    if adapted.soft_prompt is None:
        return {"input_ids": ids, "attention_mask": mask}
    text = adapted.network.get_input_embeddings()(ids)
    virtual = adapted.soft_prompt(len(ids)).to(text.dtype)
    mask = after_ones(mask, virtual.shape[1], ids)
    return {"inputs_embeds": torch.cat([virtual, text], 1), "attention_mask": mask}


def _prefix(adapted: Adapted, rows: int) -> dict[str, Any]:
    return {} if adapted.prefix is None else {"past_key_values": adapted.prefix(rows)}
