"""Answers to prompts: greedy generation, or the likeliest of given choices; in batches of rows of like length."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from peftbench.core import device
from peftbench.core.registry import UserError, error_line
from peftbench.core.spec import Evaluation
from peftbench.engine.base_model import Base
from peftbench.engine.decode_strategy import CACHED, EXACT, ROUNDED, Decoding, agree, choice_logits, choose, next_logits
from peftbench.engine.exceptions import check_answers, unusable
from peftbench.engine.families import max_positions, model_family
from peftbench.engine.families.decoder import device_of, pad
from peftbench.engine.tokenization import Encoded, answer_text
from peftbench.methods import Adapted
from peftbench.tasks import Task


def answer_rows(
    adapted: Adapted, base: Base, task: Task, asked: Evaluation, rows: list[Encoded], *, how: Decoding | None = None
) -> list[str]:
    """The answers to test rows, as text; merged if the adapted model has a merge (see `peftbench.engine.merging`).

    `how`: found out for these rows by default.
    """
    adapted.model.eval()
    how, ranked = how or decoding(adapted, base, task, asked, rows), is_ranked(task, asked, rows)

    def texts(batch: list[Encoded], cached: bool) -> list[str]:
        if ranked:
            return [row.words[i] for row, i in zip(batch, rank_choices(adapted, batch, cached), strict=True)]
        return [_text(base, ids) for ids in generate(adapted, batch, base.ends, task.facts.max_new_tokens, cached)]

    # The update is added up in full precision, so outside of autocast.
    with adapted.merge() if adapted.merge is not None else nullcontext(), low_precision(base):
        return answers_in_order(rows, how, asked.per_device_eval_batch_size, texts)


def is_ranked(task: Task, asked: Evaluation, rows: Sequence[Encoded]) -> bool:
    """Whether choices are ranked, not answers generated. Raises `UserError` if they should be and rows have none."""
    ranked = bool(task.facts.labels) if asked.answer == "auto" else asked.answer == "rank"
    if ranked and not all(row.choices for row in rows):
        raise UserError(f"task '{task.name}' has no choices to rank: use answer = \"generate\"")
    return ranked


def decoding(adapted: Adapted, base: Base, task: Task, asked: Evaluation, rows: Sequence[Encoded]) -> Decoding:
    """How rows are answered: found out once for a method on its base, and for rows of such lengths."""
    ranked, lengths = is_ranked(task, asked, rows), [len(row.prompt) for row in rows]
    key = (ranked, min(lengths), max(lengths), adapted.prefix is None, adapted.soft_prompt is None)
    if key not in base.decodings:
        adapted.model.eval()
        with low_precision(base):
            base.decodings[key] = choose(adapted, rows, ranked, base.exact)
    return base.decodings[key]


def low_precision(base: Base) -> AbstractContextManager[Any]:
    """The precision in which a base and what is on it answer."""
    return device.autocast(base.dtype == torch.bfloat16)


@torch.no_grad()
def check_virtual_tokens(adapted: Adapted, rows: Sequence[Encoded], exact: bool) -> None:
    """Raises `UserError` if the model cannot read virtual tokens before its input, passes them over, or then gives
    a row other logits in a batch than alone.
    """
    if adapted.soft_prompt is None and adapted.prefix is None:
        return
    kind = adapted.network.config.model_type
    what = f"{'a prefix' if adapted.soft_prompt is None else 'a soft prompt'} cannot be used on this model ({kind})"
    longest, calls = max((row.prompt for row in rows), key=len), model_family(adapted.network.config)
    tried = [Encoded(longest[:length], longest[:1] * 2) for length in (4, 8)]
    plain = Adapted(adapted.network, adapted.network)
    adapted.model.eval()
    if (prompt := adapted.soft_prompt) is not None:
        # As it will be when it is trained: one that starts as words of the vocabulary is none then.
        adapted = replace(adapted, soft_prompt=lambda batch: 1.01 * prompt(batch))
    try:
        together = calls.target_logits(adapted, tried).float()
        alone, without = (
            torch.cat([calls.target_logits(on, [row]) for row in tried]).float() for on in (adapted, plain)
        )
    except Exception as error:
        if device.is_out_of_memory(error):
            raise
        raise UserError(f"{what}: {error_line(error)}") from error
    if alone.equal(without):
        raise UserError(f"{what}: it has no effect on what the model says")
    if not agree(together, alone, EXACT if exact else ROUNDED):
        raise UserError(f"{what}: the same row has other logits in a batch than alone")


def check_fits(base: Base, adapted: Adapted, task: Task, rows: list[Encoded]) -> None:
    """Raises `UserError` if the model cannot read the method's virtual tokens, or has too few positions for a row, its
    answer and these.
    """
    with low_precision(base):
        check_virtual_tokens(adapted, rows, base.exact)
    most = max_positions(base.config)
    needed = base.shape.positions(adapted, rows, task.facts.max_new_tokens)
    if most is not None and needed > most:
        raise UserError(
            f"the longest row needs {needed} positions with its answer and {adapted.virtual_tokens} virtual tokens, "
            f"but the model has {most} positions: lower max_length or the number of virtual tokens"
        )


def _text(base: Base, ids: list[int]) -> str:
    return answer_text(base.tokenizer, ids)


@torch.no_grad()
def generate(
    adapted: Adapted, rows: Sequence[Encoded], ends: Sequence[int], most: int, cached: bool = True
) -> list[list[int]]:
    """The likeliest next token again and again, at most `most`, until one of `ends`, which is left out.

    Raises `DivergedError` where no token is likeliest.
    """
    steps = next_logits(adapted, [row.prompt for row in rows], cached)
    logits = next(steps)
    stops = torch.tensor(ends, device=logits.device)
    token, bad = logits.argmax(-1), unusable(logits)
    answers, open_rows = [token], ~torch.isin(token, stops) & ~bad
    while open_rows.any() and len(answers) < most:
        logits = steps.send(token)
        token = torch.where(open_rows, logits.argmax(-1), ends[0])
        bad |= open_rows & unusable(logits)
        open_rows &= ~torch.isin(token, stops) & ~bad
        answers.append(token)
    check_answers(bad, rows)
    return [_until(answer, set(ends)) for answer in torch.stack(answers, 1).tolist()]


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    return next((tokens[:i] for i, token in enumerate(tokens) if token in ends), tokens)


@torch.no_grad()
def rank_choices(adapted: Adapted, rows: Sequence[Encoded], cached: bool = True) -> list[int]:
    """The index of the likeliest choice of each row, by the log-likelihood of its tokens, its end included.

    Raises `DivergedError` where no choice is likeliest.
    """
    choices, valid = pad([choice for row in rows for choice in row.choices], 0, "right", device_of(adapted))
    likelihood = _likelihood(choice_logits(adapted, rows, cached), choices, valid).cpu()
    each_row = likelihood.split([len(row.choices) for row in rows])
    check_answers(torch.stack([unusable(each) for each in each_row]), rows)
    return [int(each.argmax()) for each in each_row]


def _likelihood(logits: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """Summed log-likelihood of valid tokens [rows]; logits [rows, length, vocabulary]. NaN stays NaN."""
    each = logits.float().log_softmax(-1).gather(2, tokens[:, :, None])[:, :, 0]
    # A product with zero would make NaN of minus infinity.
    return each.where(valid.bool(), 0).sum(1)


def answers_in_order(
    rows: Sequence[Encoded], how: Decoding, size: int, answer: Callable[[list[Encoded], bool], list[Any]]
) -> list[Any]:
    """Answers in the order of `rows`, computed in one of the ways, by `answer(batch, cached)`."""
    at_once = 1 if how == "row-by-row" else size
    return in_batches(rows, at_once, lambda batch: answer(batch, how in CACHED), how == "same-length")


def in_batches(
    rows: Sequence[Encoded], size: int, answer: Callable[[list[Encoded]], list[Any]], same_length: bool = False
) -> list[Any]:
    """Answers in the order of `rows`, computed in batches of rows of like length; one that does not fit is halved.

    `same_length`: the prompts of a batch are of one length.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt))
    groups = [list(group) for _, group in groupby(order, lambda i: len(rows[i].prompt))] if same_length else [order]
    answers: list[Any] = [None] * len(rows)
    for chosen in (group[start : start + size] for group in groups for start in range(0, len(group), size)):
        for i, found in zip(chosen, _fitting([rows[i] for i in chosen], answer), strict=True):
            answers[i] = found
    return answers


def _fitting(batch: list[Encoded], answer: Callable[[list[Encoded]], list[Any]]) -> list[Any]:
    try:
        return answer(batch)
    except (RuntimeError, MemoryError) as error:
        if len(batch) == 1 or not device.is_out_of_memory(error):
            raise
    device.empty_cache()
    half = len(batch) // 2
    return _fitting(batch[:half], answer) + _fitting(batch[half:], answer)
