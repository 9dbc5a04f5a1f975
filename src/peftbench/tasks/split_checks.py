"""What a report should say of the rows of a run: rows on two sides of a split, labels that are missing on one."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

from peftbench.tasks import Example, TaskFacts
from peftbench.tasks.cells import normalised

MOST = 20_000
"""Rows of each part that are compared; training rows come shuffled, so that the first are a sample."""

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


def remarks(
    facts: TaskFacts, train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example]
) -> tuple[str, ...]:
    """What is to be said of the rows of a run; nothing where all is well."""
    parts = {"validation": validation, "test": test}
    found = [remark for name, part in parts.items() for remark in _overlaps(name, part[:MOST], train[:MOST])]
    if max(map(len, (train, validation, test))) > MOST and found:
        found[-1] += f" (of the first {MOST:,} of each)"
    return (*found, *(_labels(facts, train, test) if facts.labels else ()))


def _overlaps(name: str, part: Sequence[Example], train: Sequence[Example]) -> Iterable[str]:
    same, near = (repeated(part, train, key) for key in (exact, alike))
    if near:
        how = "to the letter" if same == near else f"{same} of them to the letter, the others but for case and signs"
        yield f"{near} of {len(part)} {name} rows ({_percent(near, part)}) are training rows too, {how}"
    passages = {one.group for one in train if one.group}
    shared = sum(one.group in passages for one in part)
    if shared > near:
        yield f"{shared} of {len(part)} {name} rows ({_percent(shared, part)}) have a passage or group of training rows"


def _labels(facts: TaskFacts, train: Sequence[Example], test: Sequence[Example]) -> Iterable[str]:
    learned, tested = (Counter(one.target for one in part) for part in (train, test))
    if len(learned) == 1:
        yield f"all {len(train)} training rows have the label '{next(iter(learned))}'"
    elif missing := [label for label in facts.labels if not learned[label]]:
        yield f"no training row has {_named(missing)}"
    if missing := [label for label in facts.labels if not tested[label]]:
        positive = ", the positive one" if facts.positive in missing else ""
        yield f"no test row has {_named(missing)}{positive}"


def truncation(cut: int, rows: int, max_length: int) -> tuple[str, ...]:
    """What is to be said where rows were cut to fit."""
    if not cut:
        return ()
    warning = "warning: " if cut >= MUCH * rows else ""
    return (f"{warning}{cut} of {rows} rows ({100 * cut / rows:.1f} %) were shortened to max_length = {max_length}",)


def _named(labels: Sequence[str]) -> str:
    return f"the label{'s' * (len(labels) > 1)} {', '.join(map(repr, labels))}"


def _percent(count: int, part: Sequence[Example]) -> str:
    return f"{100 * count / len(part):.1f} %"
