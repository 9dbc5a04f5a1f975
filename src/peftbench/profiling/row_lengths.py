"""Lengths of the rows of a task in tokens, without downloads."""

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
"""Characters of English text per token of a large vocabulary, a common approximation."""
FRAME = 16
"""Approximate number of tokens that a chat template adds to a prompt."""
SEEN = 512
"""Maximum number of rows that are measured."""
MEASURED = Path(__file__).parent / "row_lengths.json"


@dataclass(frozen=True)
class RowLengths:
    """Row counts of a run. `train`: a sample of row shapes. `known`: from the tokenizer, not estimated."""

    train: tuple[BatchShape, ...]
    training_rows: int
    validation_rows: int
    test_rows: int
    longest_answer: int
    known: bool


def row_lengths(spec: RunSpec, data: Path | None) -> RowLengths:
    """Return the row lengths of a run: from its rows if they are generated or in `data`, else as measured for the task.

    Rows are tokenized if the model's tokenizer is on this machine; else a token is estimated as four characters.
    Raises `UserError` if the number of rows of the task is unknown.
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
        # The run itself reports the error, at almost no cost.
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
    """Return the encoder of the model, or `None` if its tokenizer is not on this machine."""
    from transformers import AutoTokenizer

    from peftbench.engine.families import model_family
    from peftbench.profiling.parameters_and_flops import configuration

    ref = find(spec.model.name)
    if not Path(ref.source).is_dir():
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.source, trust_remote_code=False)
    except Exception:
        # Libraries raise errors of any type; the run itself reports them.
        return None
    return model_family(configuration(spec.model.name)).encoder(tokenizer, task.facts, spec.train.max_length)


def _tokens(prompted: float, answered: float, spec: RunSpec, task: Task) -> BatchShape:
    """Return the estimated shape for numbers of characters, with the limits of the encoder."""
    most = spec.train.max_length
    answer = max(2, min(round(answered / TOKEN) + 1, task.facts.max_new_tokens, most // 2))
    return min(round(prompted / TOKEN) + FRAME, most - min(task.facts.max_new_tokens, most // 2)), answer


@cache
def measured_lengths() -> Mapping[str, Mapping[str, Any]]:
    """Return, by task, equally spaced quantiles of the characters of prompts and of answers."""
    content: Mapping[str, Mapping[str, Any]] = json.loads(MEASURED.read_text())
    return content


def _told(spec: RunSpec, task: Task) -> RowLengths:
    # For a task without measurements, the maximum lengths that the grid allows.
    known = measured_lengths().get(task.name, {"prompt": [1e6], "answer": [1e6]})
    prompts, answers = (np.array(known[part]) for part in ("prompt", "answer"))
    # The pairing of prompts and answers is not stored.
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
    """Return `measured_lengths` from a mirror: 33 quantiles of up to `SEEN` rows of each published task."""
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
    """Return up to `SEEN` training rows of a published task, or test rows if the mirror has only those."""
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
