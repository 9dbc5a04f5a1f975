"""Speed of convergence, from the learning curves of runs, compared with full fine-tuning on the same cell.

For each run the steps, tokens and seconds are taken up to the validation with the lowest loss, and up to the first
validation within 1 % of it. Nothing is interpolated between validations. Ratios to full fine-tuning use the same task,
size and seed; Pu et al. 2023 (arXiv 2304.14999, figure 1) compare run time in this way. A run whose lowest loss is at
its last validation might have improved further: its numbers are lower bounds, and such runs are counted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from peftbench.studies._figure_style import (
    REFERENCE,
    ROW,
    WIDTH,
    Rows,
    Style,
    chart,
    error_bars,
    log_x,
    method_encodings,
    of,
    tooltip,
    vega_spec,
)
from peftbench.studies._missing_cells import MissingCell
from peftbench.studies._run_labels import validated_on
from peftbench.studies._text_format import ABSENT, count_text, lacking_text
from peftbench.studies._train_sizes import in_order
from peftbench.studies.presentation_blocks import Figure, Section, Table
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd

WITHIN = 0.01
"""A loss is near the lowest loss if it exceeds it by at most this share of it."""
FEWEST_VALIDATIONS = 5
"""Minimum number of validations in the longest curve of a size; fewer resolve the course of training too coarsely."""
MEASURES = ("steps", "tokens", "seconds")
GOALS = ("near", "best")

CellKey = tuple[str, int]
"""Task and seed."""
ValidationPoint = tuple[float, float, float, float]
"""A point of a curve: step, tokens, seconds, validation loss."""


@dataclass(frozen=True)
class Reached:
    """Steps, tokens and seconds of a run (`MEASURES`) up to a validation loss near its lowest one, and up to that.

    `last`: the lowest loss was at the last validation. `on`: the settings that define the validation loss; losses with
    different values are not comparable.
    """

    near: Mapping[str, float]
    best: Mapping[str, float]
    loss: float
    last: bool
    on: str = ""


@dataclass(frozen=True)
class Ratio:
    """Geometric mean over cells of the ratio of a method to full fine-tuning.

    The 95 % interval is Student's t over the logarithms of `cells` cells; its ends are `None` for one cell.
    """

    mean: float
    low: float | None
    high: float | None
    cells: int


@dataclass(frozen=True)
class Pace:
    """A method at one size: geometric means by goal and measure (`taken`), and ratios to full fine-tuning (`ratios`).

    Both are empty if the method lacks cells that are compared; these are in `missing`. `loss` is the ratio of the
    lowest losses, since a method that learns little soon comes near a high loss; it is `None` if the losses are not
    comparable. `still` of `runs` runs had their lowest loss at their last validation.
    """

    method: str
    taken: Mapping[tuple[str, str], float]
    ratios: Mapping[tuple[str, str], Ratio]
    loss: Ratio | None
    runs: int
    still: int
    missing: tuple[MissingCell, ...]


@dataclass(frozen=True)
class Convergence:
    """The methods that train, for one model, machine class and train size.

    `full` is the label of full fine-tuning, to which ratios are taken, or `None` if it is not known. The cells compared
    are those of full fine-tuning; without it, those that any method has. `validations`: the fewest and the most per
    run.
    """

    model: str
    machine_class: str
    size: str
    full: str | None
    validations: tuple[int, int]
    paces: tuple[Pace, ...]


def reached(points: Sequence[ValidationPoint]) -> Reached | None:
    """Return the cost of the run of a learning curve up to its lowest loss, or `None` without a finite loss.

    If several validations have the lowest loss, the first counts, as in the choice of the tested step.
    """
    curve = sorted(point for point in points if math.isfinite(point[3]))
    if not curve:
        return None
    lowest = min(loss for *_, loss in curve)
    first = next(point for point in curve if point[3] == lowest)
    near = next(point for point in curve if point[3] <= lowest + WITHIN * abs(lowest))
    soon, best = (dict(zip(MEASURES, point[:3], strict=True)) for point in (near, first))
    return Reached(soon, best, loss=lowest, last=first is curve[-1])


def geometric(ratios: Sequence[float]) -> Ratio:
    """Return the geometric mean of positive ratios with its interval. Raises `ValueError` if there are none."""
    from scipy.special import stdtrit

    logs, n = [math.log(ratio) for ratio in ratios], len(ratios)
    if not logs:
        raise ValueError("a mean needs at least one ratio")
    mean = fmean(logs)
    if n == 1:
        return Ratio(math.exp(mean), None, None, n)
    half = float(stdtrit(n - 1, 0.975)) * math.sqrt(variance(logs) / n)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n)


def convergences(runs: "pd.DataFrame", curves: "pd.DataFrame") -> tuple[Convergence, ...]:
    """Return the convergence for each model, machine class and train size with a curve of `FEWEST_VALIDATIONS` points.

    `runs` are compared ones (`peftbench.studies._setting_selection.compared_runs`); `curves` has one row per validation
    (`peftbench.results.store.Store.curves`). Methods are compared over the same cells or not at all; methods that train
    nothing have no curve and no row.
    """
    trained = runs.groupby("label")["trainable_parameters"].transform("max") != 0
    points = curves.groupby("id")[["step", "tokens", "seconds", "validation_loss"]]
    found = {str(id_): list(held.itertuples(index=False, name=None)) for id_, held in points}
    made = []
    for (model, machine, size), here in runs[trained].groupby(["model", "machine_class", "size"]):
        counts = [len(found[id_]) for id_ in here["id"] if id_ in found]
        if max(counts, default=0) >= FEWEST_VALIDATIONS:
            names = sorted(set(here.loc[here["method"] == "full", "label"]))
            full = names[0] if len(names) == 1 else None
            span = (min(counts), max(counts))
            made.append(Convergence(str(model), str(machine), str(size), full, span, _paces(here, found, full)))
    return tuple(sorted(made, key=lambda each: (each.model, each.machine_class, in_order(each.size))))


def _paces(runs: "pd.DataFrame", curves: Mapping[str, list[ValidationPoint]], full: str | None) -> tuple[Pace, ...]:
    """Return the methods by steps up to a loss near the lowest, ascending; methods that lack a cell are last."""
    cells = {str(label): _cells(own, curves) for label, own in runs.groupby("label")}
    held = {label: {at: one for at, one in own.items() if not isinstance(one, str)} for label, own in cells.items()}
    every = sorted({at for own in held.values() for at in own})
    whole = held.get(full or "", {})
    paces = []
    for label, own in held.items():
        required = every if label == full or not whole else sorted(whole)
        missing = tuple(MissingCell(*at, str(cells[label].get(at, "absent"))) for at in required if at not in own)
        # Full fine-tuning determines the cells: cells that it lacks are reported and not compared.
        compared_at = [] if missing and label != full else [at for at in required if at in own]
        paces.append(_pace(label, [(own[at], whole.get(at)) for at in compared_at], missing))
    return tuple(sorted(paces, key=lambda pace: (pace.taken.get(("near", "steps"), math.inf), pace.method)))


def _cells(runs: "pd.DataFrame", curves: Mapping[str, list[ValidationPoint]]) -> dict[CellKey, Reached | str]:
    """Return `Reached` for each cell of a method, or the reason why it is unknown."""
    ended: dict[CellKey, list[tuple[str, str]]] = {}
    for task, seed, id_, status in zip(*(runs[name] for name in ("task", "seed", "id", "status")), strict=True):
        ended.setdefault((task, int(seed)), []).append((id_, status))
    on = dict(
        zip(zip(runs["task"], runs["seed"].astype(int), strict=True), validated_on(runs["training"]), strict=True)
    )
    cells = {at: _cell(here, curves) for at, here in sorted(ended.items())}
    return {at: one if isinstance(one, str) else replace(one, on=on[at]) for at, one in cells.items()}


def _cell(ended: Sequence[tuple[str, str]], curves: Mapping[str, list[ValidationPoint]]) -> Reached | str:
    """Return `Reached` for a cell or why it is unknown; `ended`: id and status of each of its runs."""
    good = [id_ for id_, status in ended if status == "ok"]
    if not good:
        return ended[-1][1]
    if len(good) > 1:
        return f"{len(good)} runs for one cell, select one"
    return reached(curves.get(good[0], [])) or "no learning curve"


def _pace(method: str, pairs: Sequence[tuple[Reached, Reached | None]], missing: tuple[MissingCell, ...]) -> Pace:
    taken: dict[tuple[str, str], float] = {}
    ratios: dict[tuple[str, str], Ratio] = {}
    paired = [(one, other) for one, other in pairs if other is not None]
    for goal, measure in product(GOALS, MEASURES):
        own = [getattr(one, goal)[measure] for one, _ in pairs]
        if own and min(own) > 0:
            taken[goal, measure] = geometric(own).mean
            ratio = _ratio([(getattr(one, goal)[measure], getattr(other, goal)[measure]) for one, other in paired])
            ratios |= {(goal, measure): ratio} if ratio else {}
    comparable = all(one.on == other.on for one, other in paired)
    loss = _ratio([(one.loss, other.loss) for one, other in paired]) if comparable else None
    return Pace(method, taken, ratios, loss, len(pairs), sum(one.last for one, _ in pairs), missing)


def _ratio(pairs: Sequence[tuple[float, float]]) -> Ratio | None:
    """Return the mean ratio of pairs, or `None` without pairs or if a value is not positive."""
    if not pairs or min(map(min, pairs)) <= 0:
        return None
    return geometric([one / other for one, other in pairs])


# Presentation

ORDER = 50
NEAR = f"within {WITHIN:.0%} of it".replace("%", " %")
ABOUT = (
    f"Cost of training up to its lowest validation loss and up to the first validation {NEAR}. Shown are train sizes "
    f"whose longest learning curve has {FEWEST_VALIDATIONS} validations or more; nothing is interpolated between them."
)
RATIOS = (
    "Ratios to full fine-tuning on the same task, size and seed: geometric mean, with a 95 % interval (t over the "
    "logarithms of the cells). “≥”: runs of the method had their lowest loss at the last validation, so the ratio is a "
    "lower bound; “≤”: the same for runs of full fine-tuning, so it is an upper bound; “?”: the same for runs of both. "
    "“Lowest loss” is the ratio of the lowest losses: a method that learns little soon comes near a high loss."
)
TAKEN = (
    "Geometric means over the tasks and seeds. “Still improving”: runs whose lowest loss was at their last validation; "
    "they might have improved further, so their numbers are lower bounds."
)
HEADED = {"near": "within 1 %", "best": "to lowest"}
DRAWN = {("near", "steps"): "Steps", ("near", "seconds"): "Seconds"}


def analyse(data: RunData) -> tuple[Convergence, ...] | None:
    """Return the convergence of the compared runs, or `None` if no learning curve has enough validations."""
    return convergences(data.compared, data.curves) or None


def present(found: Sequence[Convergence], styles: Mapping[str, Style]) -> Section:
    """Return tables of ratios to full fine-tuning and of absolute numbers, and figures of the ratios."""
    places = [(place, list(held)) for place, held in groupby(found, lambda each: (each.model, each.machine_class))]
    return Section(
        "convergence",
        "Convergence",
        ABOUT,
        tuple(sheet for place, held in places for sheet in _sheets(", ".join(place), held)),
        lambda: (ratio_figure(", ".join(place), held, styles) for place, held in places),
        tuple(remark for each in found for remark in _remarks(each)),
        [line for each in found for line in _data(each)],
    )


def _sheets(place: str, held: Sequence[Convergence]) -> Iterator[Table]:
    ratios = [(pace.method, each.size, *_beside(pace, each)) for each in held for pace in _others(each) if pace.ratios]
    if ratios:
        keys = [(goal, measure) for measure in ("steps", "seconds") for goal in GOALS]
        headings = ("Method", "Rows", *(f"{m.capitalize()} {HEADED[g]}" for g, m in keys), "Lowest loss")
        yield Table(f"{place}: multiples of full fine-tuning", headings, 2, tuple(ratios), RATIOS)
    taken = [(pace.method, each.size, *_took(pace)) for each in held for pace in each.paces if pace.runs]
    if taken:
        columns = (f"{measure.capitalize()} {HEADED[goal]}" for measure in MEASURES for goal in GOALS)
        headings = ("Method", "Rows", *columns, "Still improving")
        yield Table(f"{place}: what training took", headings, 2, tuple(taken), TAKEN)


def _others(held: Convergence) -> list[Pace]:
    return [pace for pace in held.paces if pace.method != held.full]


def _beside(pace: Pace, held: Convergence) -> Iterator[str]:
    mark = _mark(pace, next(each for each in held.paces if each.method == held.full))
    for measure in ("steps", "seconds"):
        for goal in GOALS:
            yield _ratio_text(pace.ratios.get((goal, measure)), mark)
    yield _ratio_text(pace.loss, "")


def _mark(pace: Pace, full: Pace) -> str:
    return {(True, False): "≥ ", (False, True): "≤ ", (True, True): "? "}.get((pace.still > 0, full.still > 0), "")


def _ratio_text(ratio: Ratio | None, mark: str) -> str:
    if ratio is None:
        return ABSENT
    ends = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"{mark}{ratio.mean:.2f}{ends}"


def _took(pace: Pace) -> Iterator[str]:
    for measure in MEASURES:
        for goal in GOALS:
            value = pace.taken.get((goal, measure))
            digits = ".1f" if measure == "seconds" and value is not None and value < 100 else ",.0f"
            yield ABSENT if value is None else count_text(value) if measure == "tokens" else format(value, digits)
    yield f"{pace.still} of {pace.runs}"


def _remarks(held: Convergence) -> Iterator[str]:
    """Yield remarks on comparisons that are not possible, and their reasons."""
    about = f"{held.model}, {held.size} training rows, {held.machine_class}"
    if held.full is None:
        yield f"{about}: there are no runs of full fine-tuning to compare with."
    fewest, most = held.validations
    counts = str(most) if fewest == most else f"{fewest} to {most}"
    runs, still = sum(pace.runs for pace in held.paces), sum(pace.still for pace in held.paces)
    yield f"{about}: {counts} validations per run; {still} of {runs} runs were still improving when training ended."
    yield from (f"{about}: {text}" for text in lacking_text((pace.method, pace.missing) for pace in held.paces))
    if any(pace.missing for pace in held.paces if pace.method == held.full):
        yield f"{about}: cells that {held.full} lacks are not compared."


def _data(held: Convergence) -> Iterator[dict[str, Any]]:
    """Yield plain values, one mapping per method."""
    for pace in held.paces:
        line: dict[str, Any] = {"model": held.model, "machine_class": held.machine_class, "size": held.size}
        line |= {"method": pace.method, "runs": pace.runs, "still_improving": pace.still}
        line |= {f"{measure}_to_{goal}": value for (goal, measure), value in pace.taken.items()}
        line |= {f"{measure}_to_{goal}_ratio": vars(ratio) for (goal, measure), ratio in pace.ratios.items()}
        yield line | {"loss_ratio": pace.loss and vars(pace.loss), "missing": list(map(str, pace.missing))}


def ratio_figure(place: str, held: Sequence[Convergence], looks: Mapping[str, Style]) -> Figure | None:
    """Return a figure of ratios to full fine-tuning with intervals, or `None` without ratios.

    Steps and seconds are side by side, train sizes one below another.
    """
    import altair as alt

    rows: Rows = [
        {"method": pace.method, "size": f"{each.size} rows", "measure": heading, **vars(ratio)}
        for each in held
        for pace in _others(each)
        for key, heading in DRAWN.items()
        if (ratio := pace.ratios.get(key)) is not None
    ]
    if not rows:
        return None
    methods = list(dict.fromkeys(row["method"] for row in rows))
    encoded = method_encodings({method: looks[method] for method in methods}, legend=False)
    drawn = chart(rows)
    x = log_x(*_ratio_ends(rows), "× full fine-tuning")
    y = alt.Y("method:N", sort=methods, title=None)
    equal = drawn.mark_rule(style=REFERENCE).encode(x=alt.datum(1))
    intervals = error_bars(drawn, "low", encoded, x=of(x, "low"), x2="high:Q", y=y)
    points = drawn.mark_point(filled=True, size=45).encode(
        x=of(x, "mean"),
        y=y,
        **encoded.point,
        tooltip=tooltip(Method="method:N", Ratio="mean:Q|.2f", From="low:Q|.2f", To="high:Q|.2f", Cells="cells:Q"),
    )
    level = alt.Header(labelAngle=0, labelAlign="left")
    made = (
        alt.layer(intervals, points, equal)
        .properties(width=WIDTH // 2, height=alt.Step(ROW))
        .facet(
            column=alt.Column("measure:N", sort=list(DRAWN.values()), title=None),
            row=alt.Row("size:N", sort=list(dict.fromkeys(row["size"] for row in rows)), header=level, title=None),
        )
    )
    title = f"{place}: cost up to the first validation {NEAR}, as multiples of full fine-tuning"
    words = "Steps and seconds to come near the lowest loss, as multiples of full fine-tuning"
    return Figure(title, vega_spec(made), words)


def _ratio_ends(rows: Rows) -> tuple[float, float]:
    """Return the ends of the axis: at least from half to double, so that small differences do not look large."""
    lows, highs = ([row[end] or row["mean"] for row in rows] for end in ("low", "high"))
    return min(0.45, 0.9 * min(lows)), max(2.2, 1.1 * max(highs))
