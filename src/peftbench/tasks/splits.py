"""Which rows a run uses: nested training subsets, held-out validation rows, test rows; the same for every method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    source = task.facts.source
    train, test = _read(task, source.train, root), _read(task, source.test, root)
    if source.validation is not None:
        held = _read(task, source.validation, root).rows
        validation = _shuffled(held, 0, "validation")[: limits.validation_rows]
        pool: Sequence[Mapping[str, Any]] = train.rows
    else:
        count = min(limits.validation_rows, len(train.rows) // 10)
        shuffled = _shuffled(train.rows, 0, "validation")
        validation, pool = shuffled[:count], shuffled[count:]
    if not validation:
        raise UserError(f"task '{task.name}': {len(train.rows)} training rows are too few to hold out a tenth")
    wanted = len(pool) if size == "all" else size
    notes = () if wanted <= len(pool) else (f"only {len(pool)} training rows: all are used, not {wanted}",)

    def examples(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        return [example(task, row, **arguments) for row in rows]

    tested = _merged(examples(test.rows)) if task.facts.merge_references else examples(test.rows)
    return Splits(
        examples(_shuffled(pool, seed, "subset")[:wanted]),
        examples(validation),
        _shuffled(tested, 0, "test")[: limits.test_rows],
        train.origin,
        train.revision,
        f"{train.fingerprint}-{test.fingerprint}",
        notes,
    )


def _read(task: Task, name: str, root: Path | None) -> Rows:
    found = _read_once(task, name, root)
    if isinstance(found, DataError):
        raise found
    return found


@lru_cache(maxsize=64)
def _read_once(task: Task, name: str, root: Path | None) -> Rows | DataError:
    """The rows, or why they cannot be had: a Hub out of reach is not waited for again by every run."""
    try:
        return read(task.facts.source, name, root, GENERATED.get(name))
    except DataError as error:
        return error


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
            Example(each.fields, each.target, each.answers)
            if first is None
            else Example(first.fields, first.target, (*first.references, *each.answers), first.choices)
        )
    return list(found.values())
