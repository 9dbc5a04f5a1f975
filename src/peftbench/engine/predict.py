"""Answers to prompts: greedy generation, or the likeliest of given choices; by length, with a key–value cache."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from peftbench.engine.endings import check_answers, unusable
from peftbench.engine.forward import device_of, pad
from peftbench.engine.load import Base
from peftbench.engine.shapes import shape
from peftbench.engine.tokens import Encoded, written
from peftbench.methods import Adapted
from peftbench.registry import UserError
from peftbench.spec import Evaluation
from peftbench.tasks import Task


def answer(adapted: Adapted, base: Base, task: Task, asked: Evaluation, rows: list[Encoded]) -> list[str]:
    """The answers to test rows, as text; merged if the adapted model has a merge (see `peftbench.engine.merging`)."""
    ranked = is_ranked(task, asked)
    if ranked and not all(row.choices for row in rows):
        raise UserError(f"task '{task.name}' has no choices to rank: use answer = \"generate\"")
    adapted.model.eval()
    size = rows_at_once(adapted, base, asked)

    def texts(batch: list[Encoded]) -> list[str]:
        if ranked:
            return [row.words[i] for row, i in zip(batch, rank(adapted, batch), strict=True)]
        return [_text(base, ids) for ids in generate(adapted, batch, base.ends, task.facts.max_new_tokens)]

    # The update is added up in full precision, so outside of autocast.
    with adapted.merge() if adapted.merge is not None else nullcontext(), low_precision(base):
        return in_batches(rows, size, texts)


def is_ranked(task: Task, asked: Evaluation) -> bool:
    """Whether answers are the likeliest of given choices."""
    return bool(task.facts.labels) if asked.answer == "auto" else asked.answer == "rank"


def low_precision(base: Base) -> AbstractContextManager[Any]:
    """The precision in which a base and what is on it answer."""
    return torch.autocast(base.model.device.type, torch.bfloat16, enabled=base.dtype == torch.bfloat16)


def rows_at_once(adapted: Adapted, base: Base, asked: Evaluation) -> int:
    """How many rows are answered together, if they fit in memory."""
    # Padding would stand between prefix and text, and use up a sliding window.
    alone = adapted.prefix is not None and getattr(base.config, "sliding_window", None)
    return 1 if alone else asked.per_device_eval_batch_size


def check_room(base: Base, adapted: Adapted, task: Task, rows: list[Encoded]) -> None:
    """Raises `UserError` if a row, its answer and the virtual tokens are more than the model has positions for."""
    positions = getattr(base.config, "max_position_embeddings", None)
    needed = base.shape.positions(adapted, rows, task.facts.max_new_tokens)
    if positions is not None and needed > positions:
        raise UserError(
            f"the longest row needs {needed} positions with its answer and {adapted.virtual_tokens} virtual tokens, "
            f"but the model has {positions} positions: lower max_length or the number of virtual tokens"
        )


def _text(base: Base, ids: list[int]) -> str:
    return written(base.tokenizer, ids)


@torch.no_grad()
def generate(adapted: Adapted, rows: Sequence[Encoded], ends: Sequence[int], most: int) -> list[list[int]]:
    """The likeliest next token again and again, at most `most`, until one of `ends`, which is left out.

    Raises `DivergedError` where no token is likeliest.
    """
    calls = shape(adapted.network.config)
    logits, reading = calls.read(adapted, [row.prompt for row in rows])
    stops = torch.tensor(ends, device=logits.device)
    token, bad = logits.argmax(-1), unusable(logits)
    answers, open_rows = [token], ~torch.isin(token, stops) & ~bad
    while open_rows.any() and len(answers) < most:
        logits = calls.advance(adapted, token[:, None], reading)[:, -1]
        token = torch.where(open_rows, logits.argmax(-1), ends[0])
        bad |= open_rows & unusable(logits)
        open_rows &= ~torch.isin(token, stops) & ~bad
        answers.append(token)
    check_answers(bad, rows)
    return [_until(answer, set(ends)) for answer in torch.stack(answers, 1).tolist()]


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    return next((tokens[:i] for i, token in enumerate(tokens) if token in ends), tokens)


@torch.no_grad()
def rank(adapted: Adapted, rows: Sequence[Encoded]) -> list[int]:
    """The index of the likeliest choice of each row, by the log-likelihood of its tokens, its end included.

    The prompt is computed once and shared by the choices, of which each row may have another number. Raises
    `DivergedError` where no choice is likeliest.
    """
    calls, on, counts = shape(adapted.network.config), device_of(adapted), [len(row.choices) for row in rows]
    repeats = counts[0] if len(set(counts)) == 1 else torch.tensor(counts, device=on)
    first, reading = calls.read(adapted, [row.prompt for row in rows])
    reading.repeat(repeats)
    choices, valid = pad([choice for row in rows for choice in row.choices], 0, "right", on)
    # The last token of a choice predicts nothing that is scored, so it is not fed.
    logits = first[:, None].repeat_interleave(repeats, 0)
    if choices.shape[1] > 1:
        logits = torch.cat([logits, calls.advance(adapted, choices[:, :-1], reading, valid[:, :-1])], 1)
    likelihood = _likelihood(logits, choices, valid).cpu().split(counts)
    check_answers(torch.stack([unusable(each) for each in likelihood]), rows)
    return [int(each.argmax()) for each in likelihood]


def _likelihood(logits: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """Summed log-likelihood of valid tokens [rows]; logits [rows, length, vocabulary]. NaN stays NaN."""
    each = logits.float().log_softmax(-1).gather(2, tokens[:, :, None])[:, :, 0]
    # A product with zero would make NaN of minus infinity.
    return each.where(valid.bool(), 0).sum(1)


def in_batches(rows: Sequence[Encoded], size: int, answer: Callable[[list[Encoded]], list[Any]]) -> list[Any]:
    """Answers in the order of `rows`, computed in batches of rows of like length; one that does not fit is halved."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt))
    answers: list[Any] = [None] * len(rows)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        for i, found in zip(chosen, _fitting([rows[i] for i in chosen], answer), strict=True):
            answers[i] = found
    return answers


def _fitting(batch: list[Encoded], answer: Callable[[list[Encoded]], list[Any]]) -> list[Any]:
    try:
        return answer(batch)
    except (RuntimeError, MemoryError) as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(batch) // 2
    return _fitting(batch[:half], answer) + _fitting(batch[half:], answer)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at a time might help."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and should_reduce_batch_size(error))
