"""Bitwise comparison of two results of one spec, and the differences of their environments."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftbench.core.spec import RunResult

AnswerRow = Mapping[str, Any]

ENVIRONMENT = ("versions", "code", "machine", "settings", "base", "data", "seeds")
APART = {*ENVIRONMENT, *"result_schema id spec curve row_scores base_reloaded notes error".split()}
"""Fields of a result that are not compared as values: inputs, free text, and fields compared separately."""
OF_THE_MOMENT = {"seconds", "second", "ms", "latency", "joules", "energy", "source"}
"""Words in the names of fields that vary from run to run, such as times, or are not numbers."""
TRACKED = "tracked-tensors"
"""The memory source whose values are reproducible to the byte."""


@dataclass(frozen=True)
class FieldDiff:
    """A compared field of two runs: its name, both values, and whether they are identical."""

    what: str
    first: Any
    again: Any
    same: bool


@dataclass(frozen=True)
class RunDiff:
    """All compared fields of two runs with this `id`, and the differences of their environments."""

    id: str
    lines: tuple[FieldDiff, ...]
    environment: tuple[FieldDiff, ...]

    @property
    def same(self) -> bool:
        """Whether all compared fields are identical; the environment is ignored."""
        return all(line.same for line in self.lines)


def compare_runs(
    first: RunResult, again: RunResult, answers: tuple[Sequence[AnswerRow], Sequence[AnswerRow]]
) -> RunDiff:
    """Compare two results: scores, learning curves, reproducible costs, and `answers` (of the first and second run).

    Times and energy are ignored, and so are fields that the first run did not record.
    """
    before, after = first.model_dump(mode="json"), again.model_dump(mode="json")
    curves = [[_lasting(point) for point in dump["curve"]] for dump in (before, after)]
    return RunDiff(
        first.id,
        (
            _rows("predictions", "row", *answers),
            _rows("learning curve", "point", *curves),
            *_lines(_values(before), _values(after)),
        ),
        tuple(_environments(before, after)),
    )


def _values(dump: AnswerRow) -> dict[str, Any]:
    """Return the reproducible fields by name; memory is included only if it was tracked."""
    values = _lasting(_flat({name: value for name, value in dump.items() if name not in APART}))
    tracked = dump["costs"]["peak_memory_source"] == TRACKED
    return {name: value for name, value in values.items() if tracked or "memory" not in name}


def _lasting(values: AnswerRow) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not OF_THE_MOMENT & set(re.split(r"[._]", name))}


def _rows(what: str, kind: str, first: Sequence[AnswerRow], again: Sequence[AnswerRow]) -> FieldDiff:
    """Compare two lists of rows: their lengths, the number of different rows, and the first difference."""
    one, other = (f"{len(rows):,} {kind}s" for rows in (first, again))
    if len(first) != len(again):
        return FieldDiff(what, one, other, False)
    unlike = [number for number, pair in enumerate(zip(first, again, strict=True)) if not _same(*pair)]
    if not unlike:
        return FieldDiff(what, one, other, True)
    number = unlike[0]
    key = next(key for key in first[number] if not _same(first[number][key], again[number].get(key)))
    where = f"{len(unlike):,} differ, from {kind} {number + 1} on"
    return FieldDiff(
        what,
        f"{one}; {kind} {number + 1}, {key}: {json.dumps(first[number][key], ensure_ascii=False)}",
        f"{where}: {json.dumps(again[number].get(key), ensure_ascii=False)}",
        False,
    )


def _lines(first: AnswerRow, again: AnswerRow) -> Iterator[FieldDiff]:
    for name, value in first.items():
        yield FieldDiff(name, value, again.get(name), _same(value, again.get(name)))


def _environments(first: AnswerRow, again: AnswerRow) -> Iterator[FieldDiff]:
    """Yield the differences of the environments; a part that only one run recorded gives one line."""
    for part in ENVIRONMENT:
        if not (first.get(part) and again.get(part)):
            before, after = ("recorded" if dump.get(part) else "not recorded" for dump in (first, again))
            if before != after:
                yield FieldDiff(part, before, after, False)
            continue
        one, other = _flat({part: first[part]}), _flat({part: again[part]})
        yield from (
            FieldDiff(name, one.get(name), other.get(name), False)
            for name in dict.fromkeys([*one, *other])
            if not _same(one.get(name), other.get(name))
        )


def _flat(values: AnswerRow, before: str = "") -> dict[str, Any]:
    """Flatten nested mappings, with names joined by dots; `None` values are left out."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        elif value is not None:
            flat[before + name] = value
    return flat


def _same(first: Any, again: Any) -> bool:
    """Return True if both are identical: NaN equals NaN, and 0.0 differs from -0.0."""
    return json.dumps(first, sort_keys=True) == json.dumps(again, sort_keys=True)
