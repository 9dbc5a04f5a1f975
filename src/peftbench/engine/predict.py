"""Answers to prompts: greedy generation, or the likeliest of given choices; by length, with a key–value cache."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from peftbench.engine.forward import advance, forward, pad
from peftbench.engine.tokens import Encoded
from peftbench.methods import Adapted


@torch.no_grad()
def generate(adapted: Adapted, rows: Sequence[Encoded], end: int, most: int) -> list[list[int]]:
    """The likeliest next token again and again, until `end` or `most` tokens; `end` is not part of the answer."""
    ids, mask = pad([row.prompt for row in rows], end, "left", _device(adapted))
    logits, cache, full = forward(adapted, ids, mask, cached=True)
    assert full is not None
    token = logits[:, -1].argmax(-1)
    answers, open_rows = [token], token != end
    while open_rows.any() and len(answers) < most:
        full = torch.cat([full, full.new_ones(len(rows), 1)], 1)
        logits, cache = advance(adapted, token[:, None], full, cache)
        token = torch.where(open_rows, logits[:, -1].argmax(-1), end)
        open_rows &= token != end
        answers.append(token)
    return [_until(answer, end) for answer in torch.stack(answers, 1).tolist()]


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


@torch.no_grad()
def rank(adapted: Adapted, rows: Sequence[Encoded]) -> list[int]:
    """The index of the likeliest choice of each row, by mean log-likelihood of its tokens (its end included).

    The prompt is computed once and shared by the choices; every row of the batch has the same number of choices.
    """
    per_row = len(rows[0].choices)
    on = _device(adapted)
    ids, mask = pad([row.prompt for row in rows], 0, "left", on)
    first, cache, full = forward(adapted, ids, mask, cached=True)
    assert full is not None
    choices, valid = pad([choice for row in rows for choice in row.choices], 0, "right", on)
    cache.batch_repeat_interleave(per_row)
    prefix = full.repeat_interleave(per_row, 0)
    # The last token of a choice predicts nothing that is scored, so it is not fed.
    logits = first[:, -1:].repeat_interleave(per_row, 0)
    if choices.shape[1] > 1:
        later, _ = advance(adapted, choices[:, :-1], torch.cat([prefix, valid[:, :-1]], 1), cache)
        logits = torch.cat([logits, later], 1)
    likelihood = _mean_likelihood(logits, choices, valid)
    return [int(i) for i in likelihood.view(len(rows), per_row).argmax(1)]


def _mean_likelihood(logits: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """Mean log-likelihood over valid tokens [rows]; logits [rows, length, vocabulary]."""
    each = logits.float().log_softmax(-1).gather(2, tokens[:, :, None])[:, :, 0]
    return (each * valid).sum(1) / valid.sum(1)


def in_batches(rows: Sequence[Encoded], size: int, answer: Callable[[list[Encoded]], list[Any]]) -> list[Any]:
    """Answers in the order of `rows`, computed in batches of rows of like length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt))
    answers: list[Any] = [None] * len(rows)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        for i, found in zip(chosen, answer([rows[i] for i in chosen]), strict=True):
            answers[i] = found
    return answers


def _device(adapted: Adapted) -> torch.device:
    parameter: Tensor = next(iter(adapted.network.parameters()))
    return parameter.device
