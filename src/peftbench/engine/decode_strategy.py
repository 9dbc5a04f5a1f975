"""Logits of tokens or choices that follow a prompt, computed in the fastest way that is correct for the model.

A cache, or padding, changes what some models say: recurrent layers read the padding, a sliding window counts it, and
some caches cannot be continued by several tokens at once. So the ways are tried on the model, the method and the rows
at hand, and compared with each row alone and without a cache.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from peftbench.engine.families import model_family
from peftbench.engine.families.decoder import device_of, pad
from peftbench.engine.tokenization import Encoded
from peftbench.methods import Adapted

Decoding = Literal["padded", "same-length", "uncached", "row-by-row"]
"""How answers are computed. `padded`: batches of any prompts, with a cache. `same-length`: batches of prompts of one
length, with a cache. `uncached`: batches of any prompts, the whole text read again for each token. `row-by-row`: that,
one row at a time."""
CACHED: tuple[Decoding, ...] = ("padded", "same-length")
NOTES: dict[Decoding, str] = {
    "same-length": "answers: in batches of prompts of equal length, as padding changes what this model answers",
    "uncached": "answers: without a cache, as this model's cache gives other answers or cannot be shared",
    "row-by-row": "answers: one row at a time without a cache, as this model's answers depend on the batch",
}
"""Notes for the user about slower ways."""
STEPS = 3
"""Number of answer tokens in a trial."""
EXACT, ROUNDED = 2e-3, 1e-1
"""Difference of logits that rounding explains, as a share of their standard deviation (root mean square): in float32;
in lower precision or on quantised weights. On tiny random models of 55 architectures what is right is off by at most
2e-6 and 2e-2, and what is wrong by at least 1e-2."""


def next_logits(adapted: Adapted, prompts: Sequence[list[int]], cached: bool = True) -> Generator[Tensor, Tensor, None]:
    """Logits [rows, vocabulary] of the token after each prompt; sent these tokens [rows], of the next, and so on."""
    calls = model_family(adapted.network.config)
    if cached:
        logits, reading = calls.read(adapted, prompts)
        while True:
            token = yield logits
            logits = calls.advance(adapted, token[:, None], reading)[:, -1]
    answers: list[list[int]] = [[] for _ in prompts]
    while True:
        # The last token of each row only makes room for the logits before it: nothing sees what is to its right.
        rows = [Encoded(prompt, [*answer, 0]) for prompt, answer in zip(prompts, answers, strict=True)]
        token = yield calls.target_logits(adapted, rows)[len(answers[0]) :: len(answers[0]) + 1]
        answers = [[*answer, new] for answer, new in zip(answers, token.tolist(), strict=True)]


def choice_logits(adapted: Adapted, rows: Sequence[Encoded], cached: bool = True) -> Tensor:
    """Logits [choices, longest, vocabulary] of the tokens of every choice of every row, one row after the other.

    With a cache the prompt is computed once and shared by the choices, of which each row may have another number.
    """
    calls, counts = model_family(adapted.network.config), [len(row.choices) for row in rows]
    if not cached:
        pairs = [Encoded(row.prompt, choice) for row in rows for choice in row.choices]
        flat = calls.target_logits(adapted, pairs)
        return pad_sequence(flat.split([len(pair.target) for pair in pairs]), batch_first=True)
    on = device_of(adapted)
    repeats = counts[0] if len(set(counts)) == 1 else torch.tensor(counts, device=on)
    first, reading = calls.read(adapted, [row.prompt for row in rows])
    logits = first[:, None].repeat_interleave(repeats, 0)
    choices, valid = pad([choice for row in rows for choice in row.choices], 0, "right", on)
    if choices.shape[1] == 1:
        return logits
    reading.repeat(repeats)
    # The last token of a choice predicts nothing that is scored, so it is not fed.
    return torch.cat([logits, calls.advance(adapted, choices[:, :-1], reading, valid[:, :-1])], 1)


@torch.no_grad()
def choose(adapted: Adapted, rows: Sequence[Encoded], ranked: bool, exact: bool) -> Decoding:
    """Return the fastest way that is correct for the shortest and the longest row, which need the most padding.

    `ranked`: their choices are to be ranked, else answers are to be generated; `exact`: all is computed in float32.
    """
    tried = _shortened(rows, ranked)
    single = [replace(row, choices=(choice,)) for row in tried for choice in row.choices] if ranked else tried
    right = torch.cat([_logits(adapted, [row], ranked, cached=False) for row in single])
    ways: tuple[tuple[Decoding, list[list[Encoded]], bool], ...] = (
        ("padded", [tried], True),
        ("same-length", [[row] for row in tried], True),
        ("uncached", [tried], False),
    )
    for decoding, batches, cached in ways:
        try:
            found = torch.cat([_logits(adapted, batch, ranked, cached) for batch in batches])
        except Exception:  # noqa: S112 — what a model cannot do shows in errors of every kind
            continue
        if agree(found, right, EXACT if exact else ROUNDED):
            return decoding
    return "row-by-row"


def _shortened(rows: Sequence[Encoded], ranked: bool) -> list[Encoded]:
    """Return the shortest and the longest row, with their shortest and longest choice or a few answer tokens."""
    ordered = sorted(rows, key=lambda row: len(row.prompt))
    ends = [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered
    if not ranked:
        return [replace(row, target=(row.target * STEPS)[:STEPS]) for row in ends]
    by_length = [sorted(row.choices, key=len) for row in ends]
    return [replace(row, choices=(each[0], each[-1])) for row, each in zip(ends, by_length, strict=True)]


def _logits(adapted: Adapted, rows: Sequence[Encoded], ranked: bool, cached: bool) -> Tensor:
    """Logits [tokens, vocabulary] of the tokens of all choices, or of the targets, one row after the other."""
    if ranked:
        valid = pad([[1] * len(choice) for row in rows for choice in row.choices], 0, "right", device_of(adapted))[1]
        return choice_logits(adapted, rows, cached)[valid.bool()].float()
    targets = torch.tensor([row.target for row in rows], device=device_of(adapted))
    steps = next_logits(adapted, [row.prompt for row in rows], cached)
    found = [next(steps), *(steps.send(token) for token in targets.T[:-1])]
    return torch.stack(found, 1).flatten(0, 1).float()


def agree(found: Tensor, right: Tensor, tolerance: float) -> bool:
    """Return True if logits [tokens, vocabulary] differ by rounding only and have the same non-finite elements."""
    if not found.isfinite().equal(right.isfinite()):
        return False
    found, right = (torch.nan_to_num(each, 0.0, 0.0, 0.0) for each in (found, right))
    apart = (found - right).square().mean(-1).sqrt()
    return bool((apart <= tolerance * right.std(-1)).all())
