"""Which rows a run uses: nested training subsets, held-out validation rows, test rows; the same for every method."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from peftbench.registry import UserError
from peftbench.seeds import Stream, stream
from peftbench.tasks import Example, Task
from peftbench.tasks.door import DataError, Rows, example, read

GENERATED = {"train": 4000, "validation": 400, "test": 1000}
"""Rows made of a source that has no end."""


@dataclass(frozen=True)
class Splits:
    """Examples of one run, and where they came from."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    origin: str
    revision: str | None
    fingerprint: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """At most so many validation rows, and a tenth of the training rows; at most so many test rows."""

    validation_rows: int = 1000
    test_rows: int | None = None


def split(
    task: Task, arguments: Mapping[str, Any], size: int | Literal["all"], seed: int, limits: Limits, root: Path | None
) -> Splits:
    """The rows of a run. A smaller training set is a prefix of a larger one of the same seed; validation and test rows
    do not depend on the seed. Test rows with the same fields are one question where the task says so.

    Raises `DataError` if a split cannot be read, `UserError` if it has too few rows to hold any out.
    """
    source, given = task.facts.source, json.dumps(arguments, sort_keys=True)
    train, test = _read(task, given, source.train, root), _read(task, given, source.test, root)
    if source.validation is not None:
        held = _read(task, given, source.validation, root)
        validation, pool = _shuffled(held.examples, 0, "validation")[: limits.validation_rows], train.examples
    else:
        held = train
        validation, pool = _held_out(train.examples, min(limits.validation_rows, len(train.examples) // 10))
    if not validation:
        raise UserError(f"task '{task.name}': {len(train.examples)} training rows are too few to hold out a tenth")
    wanted = len(pool) if size == "all" else size
    tested = _merged(test.examples) if task.facts.merge_references else test.examples
    return Splits(
        _shuffled(pool, seed, "subset")[:wanted],
        validation,
        _shuffled(tested, 0, "test")[: limits.test_rows],
        train.rows.origin,
        train.rows.revision,
        "-".join(read.rows.fingerprint for read in ([train, test] if held is train else [train, held, test])),
        () if wanted <= len(pool) else (f"only {len(pool)} training rows: all are used, not {wanted}",),
    )


@dataclass(frozen=True)
class _Read:
    rows: Rows
    examples: list[Example]


def _read(task: Task, arguments: str, name: str, root: Path | None) -> _Read:
    found = _read_once(task, arguments, name, root)
    if isinstance(found, DataError):
        raise found
    return found


@lru_cache(maxsize=16)
def _read_once(task: Task, arguments: str, name: str, root: Path | None) -> _Read | DataError:
    """The rows as examples, or why they cannot be had: a Hub out of reach is not waited for again by every run."""
    try:
        rows = read(task.facts.source, name, root, GENERATED.get(name))
        return _Read(rows, [example(task, row, **json.loads(arguments)) for row in rows.rows])
    except DataError as error:
        return error


def _held_out(examples: Sequence[Example], count: int) -> tuple[list[Example], list[Example]]:
    """`count` examples or more held out, and the others. Examples of one group, or with the same fields, stay together.

    A group (`details["group"]`) is what several questions have in common, as the paragraph they are about.
    """
    groups: dict[Any, list[Example]] = {}
    for each in examples:
        groups.setdefault(each.details.get("group", tuple(each.fields.items())), []).append(each)
    held: list[Example] = []
    pool: list[Example] = []
    for group in _shuffled(list(groups.values()), 0, "validation"):
        (held if len(held) < count else pool).extend(group)
    return held, pool


def _shuffled(rows: Sequence[Any], seed: int, name: Stream) -> list[Any]:
    order = np.random.default_rng(stream(seed, name)).permutation(len(rows))
    return [rows[i] for i in order]


def _merged(examples: Sequence[Example]) -> list[Example]:
    """One example for all that have the same fields, with the answers of all as references."""
    found: dict[tuple[tuple[str, str], ...], Example] = {}
    for each in examples:
        key = tuple(each.fields.items())
        first = found.get(key)
        found[key] = (
            replace(each, references=each.answers)
            if first is None
            else replace(first, references=(*first.references, *each.answers))
        )
    return list(found.values())
