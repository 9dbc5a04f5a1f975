"""Remarks on the rows of a run: rows that occur in two splits, labels missing in one, truncated rows."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from peftbench.tasks import Example, TaskFacts
from peftbench.tasks._table_cell_parsing import normalised

MOST = 20_000
"""Maximum number of compared rows of each part: training data, test and validation rows."""

MUCH = 0.05
"""Minimum share of truncated rows for a warning."""


def exact(one: Example) -> tuple[str, ...]:
    return tuple(one.fields.values())


def alike(one: Example) -> tuple[str, ...]:
    """Return the fields without case, extra whitespace and punctuation."""
    return tuple(map(normalised, one.fields.values()))


def repeated(part: Sequence[Example], train: Sequence[Example], key: Callable[[Example], Hashable]) -> int:
    """Count the rows of a part that have the same key as a training row."""
    seen = {key(one) for one in train}
    return sum(key(one) in seen for one in part)


@dataclass(frozen=True)
class KnownRows:
    """Keys of rows: exact fields, normalised fields (`alike`) and groups."""

    exact: frozenset[Hashable]
    alike: frozenset[Hashable]
    groups: frozenset[str]


def known_rows(rows: Sequence[Example]) -> KnownRows:
    """Return the keys of the first `MOST` rows."""
    seen = rows[:MOST]
    return KnownRows(
        frozenset(map(exact, seen)), frozenset(map(alike, seen)), frozenset(one.group for one in seen if one.group)
    )


def overlaps(name: str, part: Sequence[Example], train: Sequence[Example], others: Sequence[KnownRows]) -> list[str]:
    """Return remarks on rows of a part that occur in `others`, whether or not they are in the subset `train`."""
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
    """Return remarks on labels missing in the training rows or in the test rows."""
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
    """Return a remark if rows were truncated."""
    if not cut:
        return ()
    warning = "warning: " if cut >= MUCH * rows else ""
    return (f"{warning}{cut} of {rows} rows ({100 * cut / rows:.1f} %) were shortened to max_length = {max_length}",)


def _named(labels: Sequence[str]) -> str:
    return f"the label{'s' * (len(labels) > 1)} {', '.join(map(repr, labels))}"
