"""What a report should say of the rows of a run: rows on two sides of a split, labels that are missing on one."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from peftbench.tasks import Example, TaskFacts
from peftbench.tasks._cell_parsing import normalised

MOST = 20_000
"""Rows of each part that are compared: of the training data, the test and the validation rows."""

MUCH = 0.05
"""Share of rows cut from which it is a warning."""


def exact(one: Example) -> tuple[str, ...]:
    """The fields to the letter."""
    return tuple(one.fields.values())


def alike(one: Example) -> tuple[str, ...]:
    """The fields without case, blanks and punctuation."""
    return tuple(map(normalised, one.fields.values()))


def repeated(part: Sequence[Example], train: Sequence[Example], key: Callable[[Example], Hashable]) -> int:
    """How many of the rows of a part have the key of a training row."""
    seen = {key(one) for one in train}
    return sum(key(one) in seen for one in part)


@dataclass(frozen=True)
class KnownRows:
    """What rows are recognised by: fields to the letter, fields as `alike` has them, groups."""

    exact: frozenset[Hashable]
    alike: frozenset[Hashable]
    groups: frozenset[str]


def known_rows(rows: Sequence[Example]) -> KnownRows:
    """Of the first `MOST` rows."""
    seen = rows[:MOST]
    return KnownRows(
        frozenset(map(exact, seen)), frozenset(map(alike, seen)), frozenset(one.group for one in seen if one.group)
    )


def overlaps(name: str, part: Sequence[Example], train: Sequence[Example], others: Sequence[KnownRows]) -> list[str]:
    """Rows of a part that are known from the training data (`others`), whether or not they are among `train`."""
    seen = part[:MOST]
    same = sum(any(exact(one) in other.exact for other in others) for one in seen)
    near = [key for key in map(alike, seen) if any(key in other.alike for other in others)]
    shared = sum(any(one.group in other.groups for other in others) for one in seen)
    found = []
    if near:
        how = "to the letter" if same == len(near) else f"{same} to the letter, the others but for case and punctuation"
        trained = known_rows(train).alike
        among = f"; {sum(key in trained for key in near)} among those trained on"
        found.append(f"{_of(len(near), part, name)} are training rows too, {how}{among}")
    if shared > len(near):
        found.append(f"{_of(shared, part, name)} share a passage or group with training rows")
    return found


def _of(count: int, part: Sequence[Example], name: str) -> str:
    seen = part[:MOST]
    first = "" if len(seen) == len(part) else "the first "
    return f"{count} of {first}{len(seen)} {name} rows ({100 * count / len(seen):.1f} %)"


def label_remarks(facts: TaskFacts, train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """Labels that are not among the rows trained on, or not among those tested."""
    if not facts.labels:
        return []
    found = []
    learned, tested = (Counter(one.target for one in part) for part in (train, test))
    if len(learned) == 1:
        found.append(f"all {len(train)} training rows have the label '{next(iter(learned))}'")
    elif missing := [label for label in facts.labels if not learned[label]]:
        found.append(f"no training row has {_named(missing)}")
    if missing := [label for label in facts.labels if not tested[label]]:
        positive = ", the positive one" if facts.positive in missing else ""
        found.append(f"no test row has {_named(missing)}{positive}")
    return found


def truncation(cut: int, rows: int, max_length: int) -> tuple[str, ...]:
    """What is to be said where rows were cut to fit."""
    if not cut:
        return ()
    warning = "warning: " if cut >= MUCH * rows else ""
    return (f"{warning}{cut} of {rows} rows ({100 * cut / rows:.1f} %) were shortened to max_length = {max_length}",)


def _named(labels: Sequence[str]) -> str:
    return f"the label{'s' * (len(labels) > 1)} {', '.join(map(repr, labels))}"
