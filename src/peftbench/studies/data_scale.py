"""Score against the number of training rows: curves, power laws with a check, and crossings of methods.

Intervals of quantities other than a mean come from a parametric bootstrap (`peftbench.stats.parametric_bootstrap`). It
draws sizes independently, although a method has the same seeds and test rows at each size. Differences between sizes
are therefore more certain than the draws, and the intervals tend to be too wide.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from peftbench.stats.intervals import Estimate, Interval, Scores, cell, difference, over_tasks
from peftbench.stats.power_law import FEWEST_SIZES, PowerLaw, power_law
from peftbench.studies._curve_crossing import Crossing, crossings, sign
from peftbench.studies._figure_style import (
    WIDTH,
    Rows,
    Style,
    chart,
    error_bars,
    interval_ends,
    lines_and_points,
    method_encodings,
    of,
    tall_enough,
    tooltip,
    vega_spec,
)
from peftbench.studies._missing_cells import MissingCell, cells_of, good_of, missing_of, scores_of
from peftbench.studies._text_format import ABSENT, interval_text, lacking_text
from peftbench.studies._train_sizes import Sizes, axes
from peftbench.studies.presentation_blocks import Figure, Section, Table
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd

Lacking = tuple[tuple[str, tuple[MissingCell, ...]], ...]
"""Sizes at which a method lacks cells, with these cells."""
NOTHING = "trains nothing"
"""Why a method has no power law."""


@dataclass(frozen=True)
class SizePoint:
    """A method's score with this number of training rows."""

    rows: int
    score: Interval


@dataclass(frozen=True)
class Curve:
    """A method's scores, fewest rows first, without the sizes at which it lacks cells.

    `law` is its power law, or the reason why it has none.
    """

    method: str
    points: tuple[SizePoint, ...]
    lacking: Lacking
    law: PowerLaw | str


@dataclass(frozen=True)
class Against:
    """A method against full fine-tuning, paired by task, seed and test row.

    `leads`: pairs of the number of rows and 1 if the method is better, -1 if worse, 0 if not shown to differ.
    """

    method: str
    full: str
    leads: tuple[tuple[int, int], ...]
    crossings: tuple[Crossing, ...]


@dataclass(frozen=True)
class Scale:
    """Scores against size on one model and machine class: for one task, or the mean over several tasks.

    `left_out` names the omitted sizes with reasons.
    """

    model: str
    machine_class: str
    tasks: tuple[str, ...]
    sizes: Sizes
    left_out: tuple[str, ...]
    curves: tuple[Curve, ...]
    against: tuple[Against, ...]


def scales(runs: "pd.DataFrame", generator: np.random.Generator) -> tuple[Scale, ...]:
    """Return the scales of compared runs (`peftbench.studies._setting_selection.compared_runs`).

    For each model and machine class: the mean over its tasks, if there are several, then each task. A task needs at
    least two sizes. As on leaderboards, a method needs every cell of a size that another method has; sizes at which it
    lacks one are named. The same runs, in any order, and a generator in the same state give the same intervals.
    """
    made = []
    for (model, machine), own in runs.groupby(["model", "machine_class"]):
        held = _ScoresBySize.of(own)
        for tasks, sizes, left_out in axes(good_of(own)):
            curves = tuple(_curve(held, method, tasks, sizes, generator) for method in held.methods)
            against = [_against(held, method, tasks, sizes, generator) for method in held.methods]
            shown = tuple(each for each in against if each is not None)
            made.append(Scale(str(model), str(machine), tasks, sizes, left_out, curves, shown))
    return tuple(made)


@dataclass(frozen=True)
class _ScoresBySize:
    """Scores and missing cells on a model and machine class, by size and method; `full` is full fine-tuning."""

    methods: tuple[str, ...]
    untrained: frozenset[str]
    full: str | None
    scores: Mapping[str, Mapping[str, Scores]]
    missing: Mapping[str, Mapping[str, tuple[MissingCell, ...]]]

    @classmethod
    def of(cls, runs: "pd.DataFrame") -> "_ScoresBySize":
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
        """Return the mean over the tasks, or `None` if the method lacks one."""
        held = self.scores[size][method]
        return over_tasks([cell(held[task]) for task in tasks]) if held.keys() >= set(tasks) else None

    def lead(self, method: str, full: str, tasks: Sequence[str], size: str) -> Estimate | None:
        """Return the difference of the method to full fine-tuning, or `None` if one of them lacks a task."""
        one, other = (self.scores[size][each] for each in (method, full))
        if not set(tasks) <= one.keys() & other.keys():
            return None
        return over_tasks([difference(one[task], other[task]) for task in tasks])


def _curve(
    held: _ScoresBySize, method: str, tasks: Sequence[str], sizes: Sizes, generator: np.random.Generator
) -> Curve:
    scores = [(rows, held.score(method, tasks, size)) for size, rows in sizes]
    known = [(rows, score) for rows, score in scores if score is not None]
    missing = [(size, tuple(c for c in held.missing[size][method] if c.task in tasks)) for size, _ in sizes]
    law = (
        NOTHING
        if method in held.untrained
        else power_law([rows for rows, _ in known], [score for _, score in known], generator)
    )
    points = tuple(SizePoint(rows, score.interval()) for rows, score in known)
    return Curve(method, points, tuple((size, cells) for size, cells in missing if cells), law)


def _against(
    held: _ScoresBySize, method: str, tasks: Sequence[str], sizes: Sizes, generator: np.random.Generator
) -> Against | None:
    if held.full is None or method == held.full:
        return None
    leads = [(rows, held.lead(method, held.full, tasks, size)) for size, rows in sizes]
    known = [(rows, lead) for rows, lead in leads if lead is not None]
    found = crossings([rows for rows, _ in known], [lead for _, lead in known], generator)
    return Against(method, held.full, tuple((rows, sign(lead)) for rows, lead in known), found)


# Presentation

ORDER = 40
SEED = 0
"""Seed of the generator of the intervals, so that the same runs give the same report."""
ABOUT = (
    "Score against the number of training rows; a smaller training set is a subset of a larger one with the same seed. "
    "Methods are compared as on the leaderboards: over the same tasks and seeds, with 95 % intervals."
)
LAW = (
    f"Where there are {FEWEST_SIZES} sizes or more, b is the exponent of error = a · rows^-b, fitted to all sizes but "
    "the largest; “Predicted” is its prediction for the largest, with the range of 95 % of measurements if the law "
    "held. The law has no floor and no plateau."
)


def analyse(data: RunData) -> tuple[Scale, ...] | None:
    """Return scores by train size, or `None` if no model was trained on at least two sizes."""
    return scales(data.compared, np.random.default_rng(SEED)) or None


def present(found: Sequence[Scale], styles: Mapping[str, Style]) -> Section:
    """Return a table and a figure per scale, and a table of crossings with full fine-tuning."""
    return Section(
        "scale",
        "Training rows",
        ABOUT,
        (*map(_scores, found), *_crossings(found)),
        lambda: (scale_figure(scale, styles) for scale in found if any(curve.points for curve in scale.curves)),
        (LAW, *dict.fromkeys(remark for scale in found for remark in _remarks(scale))),
        [line for scale in found for line in _data(scale)],
    )


def crossing_text(against: Against) -> str:
    """Return text on which method is better at which sizes and where that changes, as far as intervals show it."""
    if against.crossings:
        return "; ".join(_crossing(each, against) for each in against.crossings)
    told = {better: [rows for rows, sign in against.leads if sign == better] for better in (1, -1, 0)}
    if not told[1] and not told[-1]:
        return "not shown to differ at any size" if told[0] else "no size in common"
    winner, rows = (against.method, told[1]) if told[1] else (against.full, told[-1])
    unknown = f"; not shown to differ at {_listed(told[0])}" if told[0] else ""
    return f"no crossing seen: {winner} is better at {_listed(rows)} rows{unknown}"


def _crossing(crossing: Crossing, against: Against) -> str:
    below, above = (against.method, against.full)[:: 1 if crossing.first_below else -1]
    at, low, high = (f"{float(f'{rows:.2g}'):,.0f}" for rows in (crossing.rows, crossing.low, crossing.high))
    return f"below about {at} rows {below} is better, above {above} is better (95 %: {low} to {high} rows)"


def _listed(rows: Sequence[int]) -> str:
    texts = [f"{each:,}" for each in rows]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _subject(scale: Scale) -> str:
    return scale.tasks[0] if len(scale.tasks) == 1 else f"mean of {len(scale.tasks)} tasks"


def _title(scale: Scale) -> str:
    return f"{scale.model}, {scale.machine_class}: {_subject(scale)}"


def _scores(scale: Scale) -> Table:
    """Return a table with a line per method; with three sizes or more it includes the power law."""
    rows = [number for _, number in scale.sizes]
    with_laws = len(rows) >= FEWEST_SIZES
    headings = [f"{number:,} rows" for number in rows] + ["b", "Predicted", "Measured", "As predicted"] * with_laws
    lines = []
    for curve in scale.curves:
        held = {point.rows: interval_text(point.score) for point in curve.points}
        line = [curve.method, *(held.get(number, ABSENT) for number in rows)]
        lines.append(tuple(line + _law(curve) * with_laws))
    return Table(f"{_title(scale)}, score by training rows", ("Method", *headings), 1, tuple(lines))


def _law(curve: Curve) -> list[str]:
    law = curve.law
    if isinstance(law, str):
        return [ABSENT] * 4
    b, predicted = f"{law.b:.2f}", f"{law.predicted:.1f}"
    if law.low is not None and law.high is not None:
        b += f" ({law.b_low:.2f} to {law.b_high:.2f})"
        predicted += f" ({law.low:.1f} to {law.high:.1f})"
    return [b, predicted, f"{law.measured:.1f}", _verdict(law)]


def _verdict(law: PowerLaw) -> str:
    if law.holds is None:
        return "not known"
    return "yes" if law.holds else f"no, {'better' if law.measured > law.predicted else 'worse'}"


def _crossings(found: Sequence[Scale]) -> list[Table]:
    lines = [(_title(scale), each.method, crossing_text(each)) for scale in found for each in scale.against]
    if not lines:
        return []
    note = (
        "A crossing is reported only if the intervals of the paired difference exclude 0 on both sides of it; its "
        "position is interpolated in the logarithm of the rows. Sizes outside those that were run are not extrapolated."
    )
    headings = ("Scores", "Method", "Against full fine-tuning")
    return [Table("Where methods cross full fine-tuning", headings, 3, tuple(lines), note)]


def _remarks(scale: Scale) -> Iterator[str]:
    """Yield remarks on omitted sizes and on power laws that could not be fitted."""
    about = f"{scale.model}, {scale.machine_class}"
    yield from (f"{about}: {reason}." for reason in scale.left_out)
    for size, _ in scale.sizes:
        missing = [(curve.method, dict(curve.lacking).get(size, ())) for curve in scale.curves]
        yield from (f"{about}, size {size} left out: {text}" for text in lacking_text(missing))
    for curve in scale.curves:
        if isinstance(curve.law, str) and curve.law != NOTHING and len(scale.sizes) >= FEWEST_SIZES:
            yield f"{_title(scale)}: no power law for {curve.method}: {curve.law}."


def _data(scale: Scale) -> Iterator[dict[str, Any]]:
    """Yield plain values, one mapping per method."""
    against = {each.method: each for each in scale.against}
    for curve in scale.curves:
        law = None if isinstance(curve.law, str) else vars(curve.law)
        scores = [
            {"rows": p.rows, "mean": p.score.mean, "low": p.score.low, "high": p.score.high} for p in curve.points
        ]
        held = against.get(curve.method)
        yield {
            "model": scale.model,
            "machine_class": scale.machine_class,
            "tasks": list(scale.tasks),
            "method": curve.method,
            "scores": scores,
            "power_law": law,
            "crossings": [vars(each) for each in held.crossings] if held else [],
            "against_full": crossing_text(held) if held else None,
        }


def scale_figure(scale: Scale, looks: Mapping[str, Style]) -> Figure:
    """Return a figure of the score with its interval against training rows (log), one line per method."""
    import altair as alt

    drawn = sorted((curve for curve in scale.curves if curve.points), key=lambda curve: -curve.points[-1].score.mean)
    rows: Rows = [
        {
            "method": curve.method,
            "rows": point.rows,
            # Shifted sideways, so that the intervals of several methods do not overlap.
            "beside": point.rows * 1.02 ** (i - (len(drawn) - 1) / 2),
            **interval_ends(point.score),
        }
        for i, curve in enumerate(drawn)
        for point in curve.points
    ]
    encoded = method_encodings({curve.method: looks[curve.method] for curve in drawn})
    ticks = alt.Axis(values=[number for _, number in scale.sizes], format=",d")
    x = alt.X("beside:Q", scale=alt.Scale(type="log", nice=False, padding=15), axis=ticks, title="Training rows")
    y = alt.Y(scale=alt.Scale(zero=False), title="Score (95 % interval)")
    intervals = error_bars(chart(rows), "low", encoded, x=x, y=of(y, "low"), y2="high:Q")
    shown = tooltip(Method="method:N", Rows="rows:Q|,d", Score="mean:Q|.1f", From="low:Q|.1f", To="high:Q|.1f")
    curves = lines_and_points(chart(rows), encoded, {"x": x, "y": of(y, "mean")}, shown)
    made = alt.layer(intervals, *curves).properties(width=WIDTH, height=tall_enough(curve.method for curve in drawn))
    return Figure(_title(scale), vega_spec(made), f"Score against training rows, one line per method: {_title(scale)}")
