"""Whether two runs of one spec found the same, to the bit, and what of their environments differs."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftbench.core.spec import RunResult

AnswerRow = Mapping[str, Any]

ENVIRONMENT = ("versions", "code", "machine", "settings", "base", "data", "seeds")
APART = {*ENVIRONMENT, *"result_schema id spec curve row_scores base_reloaded notes error".split()}
"""Parts of a result that are not found but given, compared in another way, or words."""
OF_THE_MOMENT = {"seconds", "second", "ms", "latency", "joules", "energy", "source"}
"""Words in the names of numbers that no two runs have alike, and of what is no number."""
TRACKED = "tracked-tensors"
"""The source of memory that is repeatable to the byte."""


@dataclass(frozen=True)
class FieldDiff:
    """One thing that two runs found, or had: what it is, in words or numbers, and whether it is the same to the bit."""

    what: str
    first: Any
    again: Any
    same: bool


@dataclass(frozen=True)
class RunDiff:
    """Everything that was compared of two runs, and what of their environments differs. `id`: of the runs."""

    id: str
    lines: tuple[FieldDiff, ...]
    environment: tuple[FieldDiff, ...]

    @property
    def same(self) -> bool:
        """Whether all that was compared is the same; the environment need not be."""
        return all(line.same for line in self.lines)


def compare_runs(
    first: RunResult, again: RunResult, answers: tuple[Sequence[AnswerRow], Sequence[AnswerRow]]
) -> RunDiff:
    """Compare what was found, the learning curves without their seconds, the costs that time has no part in, and the
    rows of `answers`, of the first run and of the other. What the first run did not record is not compared.
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
    """What was found, by name, and the costs that two runs must have alike: memory is one where it is tracked."""
    found = _lasting(_flat({name: value for name, value in dump.items() if name not in APART}))
    tracked = dump["costs"]["peak_memory_source"] == TRACKED
    return {name: value for name, value in found.items() if tracked or "memory" not in name}


def _lasting(values: AnswerRow) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not OF_THE_MOMENT & set(re.split(r"[._]", name))}


def _rows(what: str, kind: str, first: Sequence[AnswerRow], again: Sequence[AnswerRow]) -> FieldDiff:
    """Two lists of rows in a line: how many there are, how many differ, and how the first of these does."""
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
    """What differs; a part that one of the two did not record is one line."""
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
    """Nested mappings as one, their names joined by dots; what is missing is left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        elif value is not None:
            found[before + name] = value
    return found


def _same(first: Any, again: Any) -> bool:
    """Equal to the bit: a NaN is a NaN, and 0.0 is not -0.0."""
    return json.dumps(first, sort_keys=True) == json.dumps(again, sort_keys=True)
