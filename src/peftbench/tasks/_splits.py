"""Select the rows of a run: nested training subsets, validation rows and test rows, the same for all methods."""

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from peftbench.core.registry import UserError
from peftbench.core.seeds import Stream, stream
from peftbench.tasks import Example, Row, Task, _split_checks
from peftbench.tasks._loading import DataError, LoadedRows, check_label_names, example_of, read_rows

TEST_SHARE = 5
"""Without a test split, one in this many training rows is a test row."""
GENERATED = {"train": 4000, "validation": 400, "test": 1000}
"""Number of rows generated per split."""


@dataclass(frozen=True)
class Splits:
    """Examples of one run and their provenance. `remarks` are notes for the report."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    origin: str
    revision: str | None
    fingerprint: str
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowLimits:
    """Maximum numbers of validation and test rows. Held-out validation is at most a tenth of the training rows."""

    validation_rows: int = 1000
    test_rows: int | None = None


def split(
    task: Task,
    arguments: Mapping[str, Any],
    size: int | Literal["all"],
    seed: int,
    limits: RowLimits,
    *,
    root: Path | None,
) -> Splits:
    """Return the rows of a run. A smaller training set is a prefix of a larger one of the same seed.

    Validation and test rows do not depend on the seed. Without a test split, a fifth of the training rows is held out
    for the test first. Held-out rows and training sets are stratified by label, except for generated rows.
    Raises `DataError` if a split cannot be read, `UserError` if it has too few rows to hold any out.
    """
    found = _parts(task, json.dumps(arguments, sort_keys=True), limits.validation_rows, root)
    wanted = len(found.pool) if size == "all" else size
    train = _ordered(found.pool, seed, "subset", found.by_label)[:wanted]
    test = _shuffled(found.tested, 0, "test")[: limits.test_rows]
    short = f"only {len(found.pool)} training rows: all are used, not {wanted}"
    return Splits(
        train,
        found.validation,
        test,
        found.rows.origin,
        found.rows.revision,
        found.fingerprint,
        (short,) if wanted > len(found.pool) else (),
        (
            *task.facts.remarks,
            *_split_checks.overlaps("validation", found.validation, train, found.known[:1]),
            *_split_checks.overlaps("test", test, train, found.known),
            *_split_checks.label_remarks(task.facts, train, test),
        ),
    )


@dataclass(frozen=True)
class _Parts:
    """Rows shared by all runs of a task: `pool` contains the candidates for training.

    `known` has the keys of the pool and of the validation rows.
    """

    pool: list[Example]
    validation: list[Example]
    tested: list[Example]
    rows: LoadedRows
    fingerprint: str
    by_label: bool
    known: tuple[_split_checks.KnownRows, ...]


@lru_cache(maxsize=8)
def _parts(task: Task, arguments: str, validation_rows: int, root: Path | None) -> _Parts:
    source = task.facts.source
    by_label = bool(task.facts.labels) and source.generator is None
    train = _read(task, arguments, source.train, root)
    reads = [train] if source.test is None else [train, _read(task, arguments, source.test, root)]
    tested, rest = (
        _held_out(train.examples, len(train.examples) // TEST_SHARE, "test", by_label)
        if source.test is None
        else (reads[-1].examples, train.examples)
    )
    if source.validation is not None:
        held = _read(task, arguments, source.validation, root)
        reads.insert(1, held)
        validation, pool = _shuffled(held.examples, 0, "validation")[:validation_rows], rest
    else:
        validation, pool = _held_out(rest, min(validation_rows, max(1, len(rest) // 10)), "validation", by_label)
    if not (validation and pool and tested):
        raise UserError(
            f"task '{task.name}': {len(train.examples)} training rows are too few to hold out test and validation rows"
        )
    tested = _merged(tested) if task.facts.merge_references else tested
    fingerprint = "-".join(read.rows.fingerprint for read in reads)
    known = (_split_checks.known_rows(pool), _split_checks.known_rows(validation))
    return _Parts(pool, validation, tested, train.rows, fingerprint, by_label, known)


@dataclass(frozen=True)
class _Read:
    rows: LoadedRows
    examples: list[Example]


def _read(task: Task, arguments: str, name: str, root: Path | None) -> _Read:
    found = _read_once(task, arguments, name, root)
    if isinstance(found, DataError):
        raise found
    return found


@lru_cache(maxsize=16)
def _read_once(task: Task, arguments: str, name: str, root: Path | None) -> _Read | DataError:
    """Return the rows or the error. The error is cached so that later runs do not wait for the Hub again."""
    try:
        rows = read_rows(task.facts.source, name, root, GENERATED.get(name))
        made = _examples(task, name, rows.rows, json.loads(arguments))
        check_label_names(task, rows.names, rows.rows, made)
        return _Read(rows, made)
    except DataError as error:
        return error


def _examples(task: Task, name: str, rows: Sequence[Row], arguments: Mapping[str, Any]) -> list[Example]:
    made = []
    for number, row in enumerate(rows, 1):
        try:
            made.append(example_of(task, row, **arguments))
        except DataError as error:
            raise DataError(f"{error} (split '{name}', row {number})") from error.__cause__
    return made


def _held_out(
    examples: Sequence[Example], count: int, name: Stream, by_label: bool
) -> tuple[list[Example], list[Example]]:
    """Return at least `count` held-out examples, and the others. Examples with the same group or normalised text stay
    together. With `by_label`, both parts are stratified; the last group of a label is never held out, and a label with
    two groups or more is always in the test.
    """
    groups: dict[Hashable, list[Example]] = {}
    for each in examples:
        groups.setdefault(each.group or _split_checks.alike(each), []).append(each)
    shuffled = _shuffled(list(groups.values()), 0, name)
    if not by_label:
        return _filled(shuffled, count, len(shuffled))
    labels: dict[str, list[list[Example]]] = {}
    for group in shuffled:
        labels.setdefault(_label(group), []).append(group)
    held: list[Example] = []
    pool: list[Example] = []
    shares = _shares({label: sum(map(len, part)) for label, part in labels.items() if len(part) > 1}, count, name)
    for label, part in labels.items():
        taken, left = _filled(part, shares.get(label, 0), len(part) - 1)
        held += taken
        pool += left
    return held, pool


def _filled(groups: Sequence[list[Example]], count: int, most: int) -> tuple[list[Example], list[Example]]:
    """Return the first groups with `count` examples in total, at most `most` groups, and the others."""
    held: list[Example] = []
    pool: list[Example] = []
    for place, group in enumerate(groups):
        (held if len(held) < count and place < most else pool).extend(group)
    return held, pool


def _shares(sizes: Mapping[str, int], count: int, name: Stream) -> dict[str, int]:
    """Divide `count` in proportion to sizes by largest remainders; for the test, each share is at least one."""
    exact = {label: count * size / sum(sizes.values()) for label, size in sizes.items()}
    found = {label: math.floor(share) for label, share in exact.items()}
    rest = sorted(sizes, key=lambda label: exact[label] - found[label], reverse=True)[: count - sum(found.values())]
    return {label: max(int(name == "test"), found[label] + (label in rest)) for label in sizes}


def _label(group: Sequence[Example]) -> str:
    """Return the most frequent label of a group."""
    return Counter(one.target for one in group).most_common(1)[0][0]


def _ordered(examples: Sequence[Example], seed: int, name: Stream, by_label: bool) -> list[Example]:
    """Shuffle examples; with `by_label`, every prefix is stratified."""
    shuffled = _shuffled(examples, seed, name)
    if not by_label:
        return shuffled
    sizes, seen = Counter(one.target for one in shuffled), Counter[str]()
    places = []
    for one in shuffled:
        places.append((seen[one.target] + 0.5) / sizes[one.target])
        seen[one.target] += 1
    return [shuffled[i] for i in sorted(range(len(shuffled)), key=places.__getitem__)]


def _shuffled(rows: Sequence[Any], seed: int, name: Stream) -> list[Any]:
    order = np.random.default_rng(stream(seed, name)).permutation(len(rows))
    return [rows[i] for i in order]


def _merged(examples: Sequence[Example]) -> list[Example]:
    """Merge examples with the same fields into one with the references of all."""
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
