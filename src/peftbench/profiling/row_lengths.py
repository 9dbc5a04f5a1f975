"""How long the rows of a task are, in tokens, before any of them is fetched."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.engine.tokenization import Encoder, encode_examples
from peftbench.models import find
from peftbench.profiling.dry_run import BatchShape
from peftbench.tasks import TASKS, Example, Task, resolve
from peftbench.tasks._loading import DataError, example_of, read_rows
from peftbench.tasks._prompt import prompt
from peftbench.tasks._splits import RowLimits, Splits, split

TOKEN = 4.0
"""Characters of English a token of a large vocabulary stands for: the usual rule of thumb."""
FRAME = 16
"""Tokens that a chat template puts around a prompt, about."""
SEEN = 512
"""Rows that are looked at where there are more."""
MEASURED = Path(__file__).parent / "row_lengths.json"


@dataclass(frozen=True)
class RowLengths:
    """Rows of a run: `train` (a sample of) their lengths; `known` says whether they were read or are told by rule."""

    train: tuple[BatchShape, ...]
    training_rows: int
    validation_rows: int
    test_rows: int
    longest_answer: int
    known: bool


def row_lengths(spec: RunSpec, data: Path | None) -> RowLengths:
    """The rows of a run: read where they are made by rule or lie in `data`, else by what was measured of the task.

    Tokens are those of the model's tokenizer where rows are read and it is at hand, else a quarter of the characters.
    Raises `UserError` for a task of which nothing is known.
    """
    task = resolve(spec.task.name, spec.task.arguments)
    found = _read(task, json.dumps(spec.task.arguments, sort_keys=True), spec.size, _limits(spec), data)
    if found is None:
        return _told(spec, task)
    return _counted(spec, task, found)


def _limits(spec: RunSpec) -> RowLimits:
    return RowLimits(spec.train.validation_rows, spec.eval.test_rows)


@lru_cache(maxsize=64)
def _read(task: Task, arguments: str, size: Any, limits: RowLimits, data: Path | None) -> Splits | None:
    source = task.facts.source
    if source.published and data is None:
        return None
    try:
        return split(task, json.loads(arguments), size, 0, limits, root=data)
    except DataError:
        if source.published:
            return None
        raise


def _counted(spec: RunSpec, task: Task, found: Splits) -> RowLengths:
    seen = found.train[:SEEN]
    try:
        encoder = _encoder(spec, task)
        rows = encode_examples(encoder, seen) if encoder is not None else None
    except UserError:
        # The run will be refused and say why, which costs next to nothing.
        rows = None
    lengths = (
        [_tokens(len(prompt(task.facts, e.fields)), len(e.target), spec, task) for e in seen]
        if rows is None
        else [(len(row.prompt), len(row.target)) for row in rows]
    )
    return RowLengths(
        tuple(lengths),
        len(found.train),
        len(found.validation),
        len(found.test),
        task.facts.max_new_tokens,
        rows is not None,
    )


def _encoder(spec: RunSpec, task: Task) -> Encoder | None:
    """What makes rows into tokens for the model, if its tokenizer is on this machine."""
    from transformers import AutoTokenizer

    from peftbench.engine.families import model_family
    from peftbench.profiling.parameters_and_flops import configuration

    ref = find(spec.model.name)
    if not Path(ref.source).is_dir():
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.source, trust_remote_code=False)
    except Exception:
        # Libraries raise errors of every kind; a run will say what is wrong.
        return None
    return model_family(configuration(spec.model.name)).encoder(tokenizer, task.facts, spec.train.max_length)


def _tokens(prompted: float, answered: float, spec: RunSpec, task: Task) -> BatchShape:
    """Tokens of so many characters of prompt and answer, as the encoder would shorten them."""
    most = spec.train.max_length
    answer = max(2, min(round(answered / TOKEN) + 1, task.facts.max_new_tokens, most // 2))
    return min(round(prompted / TOKEN) + FRAME, most - min(task.facts.max_new_tokens, most // 2)), answer


@cache
def measured_lengths() -> Mapping[str, Mapping[str, Any]]:
    """By task: numbers of characters of prompts and of answers, at even quantiles from the least to the greatest."""
    content: Mapping[str, Mapping[str, Any]] = json.loads(MEASURED.read_text())
    return content


def _told(spec: RunSpec, task: Task) -> RowLengths:
    # Of a task that nobody has measured, the longest rows that the grid lets through.
    known = measured_lengths().get(task.name, {"prompt": [1e6], "answer": [1e6]})
    prompts, answers = (np.array(known[part]) for part in ("prompt", "answer"))
    # Which answer goes with which prompt is not kept.
    order = np.random.default_rng(0).permutation(len(answers))
    lengths = tuple(_tokens(p, a, spec, task) for p, a in zip(prompts, answers[order], strict=True))
    in_all, tested = task.facts.source.sizes or (None, None)
    if spec.size == "all" and in_all is None:
        raise UserError(f"task {task.name}: how many training rows it has is not known: give --data, or a size")
    wanted = in_all if spec.size == "all" else min(int(spec.size), in_all or int(spec.size))
    assert wanted is not None
    test = min(x for x in (spec.eval.test_rows, tested, 10**9) if x is not None)
    if test == 10**9:
        raise UserError(f"task {task.name}: how many test rows it has is not known: give --data, or eval.test_rows")
    return RowLengths(
        lengths, wanted, min(spec.train.validation_rows, wanted // 10 or 1), test, task.facts.max_new_tokens, False
    )


def measure_lengths(data: Path) -> dict[str, dict[str, list[int]]]:
    """`measured()` anew, from a mirror: 33 quantiles of at most `SEEN` training rows of every published task in it."""
    found = {}
    for unit in TASKS:
        examples = _examples(unit, data)
        if not examples:
            continue
        parts = {
            "prompt": [len(prompt(unit.facts, example.fields)) for example in examples],
            "answer": [len(example.target) for example in examples],
        }
        steps = np.linspace(0, 1, 33)
        found[unit.name] = {name: [round(x) for x in np.quantile(held, steps)] for name, held in parts.items()}
    return found


def _examples(task: Task, data: Path) -> Sequence[Example]:
    """At most `SEEN` rows of a published task: for training, or for the test where a mirror has only those."""
    source = task.facts.source
    if not source.published or task.facts.specialise is not None:
        return []
    for name in (source.train, source.test):
        try:
            found = read_rows(source, name, data, None) if name else None
        except DataError:
            continue
        if found is not None:
            return [example_of(task, row) for row in found.rows[:SEEN]]
    return []
