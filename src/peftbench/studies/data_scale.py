"""Score against the number of training rows: curves, power laws that are checked, and where methods cross.

Intervals that are not of a single mean are by a parametric bootstrap (`peftbench.stats.parametric_bootstrap`). It draws
sizes independently, though the seeds and the test rows of a method are the same at each: differences between sizes are
more certain than drawn, so the intervals are rather too wide than too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from peftbench.stats.intervals import Estimate, Interval, Scores, cell, difference, over_tasks
from peftbench.stats.power_law import PowerLaw, power_law
from peftbench.studies.coverage import MissingCell, cells_of, good_of, missing_of, scores_of
from peftbench.studies.crossing import Crossing, crossings, sign
from peftbench.studies.model_selection import compared
from peftbench.studies.train_sizes import Sizes, axes

if TYPE_CHECKING:
    import pandas as pd

Lacking = tuple[tuple[str, tuple[MissingCell, ...]], ...]
"""Sizes at which a method lacks cells, with those."""
NOTHING = "trains nothing"
"""Why a method has no power law."""


@dataclass(frozen=True)
class Point:
    """A method's score after so many training rows."""

    rows: int
    score: Interval


@dataclass(frozen=True)
class Curve:
    """A method's scores, fewest rows first, without the sizes at which it lacks cells.

    `law` is its power law, or why it has none.
    """

    method: str
    points: tuple[Point, ...]
    lacking: Lacking
    law: PowerLaw | str


@dataclass(frozen=True)
class Against:
    """A method against full fine-tuning, paired by task, seed and test row.

    `leads`: by number of rows, 1 where it is better, -1 where worse, 0 where that cannot be told.
    """

    method: str
    full: str
    leads: tuple[tuple[int, int], ...]
    crossings: tuple[Crossing, ...]


@dataclass(frozen=True)
class Scale:
    """Scores against size on one model and machine class: of a task, or the mean over several.

    `left_out` says which sizes are not in it and why.
    """

    model: str
    machine_class: str
    tasks: tuple[str, ...]
    sizes: Sizes
    left_out: tuple[str, ...]
    curves: tuple[Curve, ...]
    against: tuple[Against, ...]


def scales(table: "pd.DataFrame", generator: np.random.Generator) -> tuple[Scale, ...]:
    """The scales of a table with one row per run (`peftbench.table`).

    Of each model and machine class: the mean over its tasks, where there are several, then each task. Only sizes at
    which the grid has the task, and two of them or more. As on leaderboards a method needs every cell of a size that
    another has there; sizes at which it lacks one are named. The same table, with its rows in any order, and a
    generator in the same state give the same intervals.
    """
    made = []
    for (model, machine), runs in compared(table).groupby(["model", "machine_class"]):
        held = _Held.of(runs)
        for tasks, sizes, left_out in axes(good_of(runs)):
            curves = tuple(_curve(held, method, tasks, sizes, generator) for method in held.methods)
            against = [_against(held, method, tasks, sizes, generator) for method in held.methods]
            shown = tuple(each for each in against if each is not None)
            made.append(Scale(str(model), str(machine), tasks, sizes, left_out, curves, shown))
    return tuple(made)


@dataclass(frozen=True)
class _Held:
    """What the methods have on a model and machine class, by size and method; `full` is the one that trains all."""

    methods: tuple[str, ...]
    untrained: frozenset[str]
    full: str | None
    scores: Mapping[str, Mapping[str, Scores]]
    missing: Mapping[str, Mapping[str, tuple[MissingCell, ...]]]

    @classmethod
    def of(cls, runs: "pd.DataFrame") -> "_Held":
        methods = tuple(sorted(set(runs["label"])))
        scores, missing = {}, {}
        for size, here in runs.groupby("size"):
            required, own = cells_of(good_of(here)), {label: here[here["label"] == label] for label in methods}
            missing[str(size)] = {label: missing_of(own[label], required) for label in methods}
            scores[str(size)] = {label: scores_of(own[label], missing[str(size)][label]) for label in methods}
        trained = runs.groupby("label")["trainable_parameters"].max()
        full = sorted(set(runs.loc[runs["method"] == "full", "label"]))
        untrained = frozenset(map(str, trained[trained == 0].index))
        return cls(methods, untrained, full[0] if len(full) == 1 else None, scores, missing)

    def score(self, method: str, tasks: Sequence[str], size: str) -> Estimate | None:
        """The mean over the tasks, if the method has them."""
        held = self.scores[size][method]
        return over_tasks([cell(held[task]) for task in tasks]) if held.keys() >= set(tasks) else None

    def lead(self, method: str, full: str, tasks: Sequence[str], size: str) -> Estimate | None:
        """By how much the method is better than full fine-tuning, if both have the tasks."""
        one, other = (self.scores[size][each] for each in (method, full))
        if not set(tasks) <= one.keys() & other.keys():
            return None
        return over_tasks([difference(one[task], other[task]) for task in tasks])


def _curve(held: _Held, method: str, tasks: Sequence[str], sizes: Sizes, generator: np.random.Generator) -> Curve:
    scores = [(rows, held.score(method, tasks, size)) for size, rows in sizes]
    known = [(rows, score) for rows, score in scores if score is not None]
    missing = [(size, tuple(c for c in held.missing[size][method] if c.task in tasks)) for size, _ in sizes]
    law = (
        NOTHING
        if method in held.untrained
        else power_law([rows for rows, _ in known], [score for _, score in known], generator)
    )
    points = tuple(Point(rows, score.interval()) for rows, score in known)
    return Curve(method, points, tuple((size, cells) for size, cells in missing if cells), law)


def _against(
    held: _Held, method: str, tasks: Sequence[str], sizes: Sizes, generator: np.random.Generator
) -> Against | None:
    if held.full is None or method == held.full:
        return None
    leads = [(rows, held.lead(method, held.full, tasks, size)) for size, rows in sizes]
    known = [(rows, lead) for rows, lead in leads if lead is not None]
    found = crossings([rows for rows, _ in known], [lead for _, lead in known], generator)
    return Against(method, held.full, tuple((rows, sign(lead)) for rows, lead in known), found)
