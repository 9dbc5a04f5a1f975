"""The section on convergence: what methods take to come near their lowest validation loss, beside full fine-tuning."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from peftbench.report.columns import ABSENT, humane
from peftbench.report.tables import lacking
from peftbench.studies.convergence import (
    FEWEST_VALIDATIONS,
    GOALS,
    MEASURES,
    WITHIN,
    Convergence,
    Pace,
    Ratio,
    convergences,
)
from peftbench.studies.figures import INK, Style, beside, drawing, frame, svg
from peftbench.studies.report_data import Evidence, Section, Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR = f"within {WITHIN:.0%} of it".replace("%", " %")
ABOUT = (
    f"What training takes to its lowest validation loss and to the first validation {NEAR}. Shown are train sizes "
    f"whose longest learning curve has {FEWEST_VALIDATIONS} validations or more; nothing is interpolated between them."
)
RATIOS = (
    "Multiples of what full fine-tuning took on the same task, size and seed: geometric mean, with a 95 % interval "
    "(t over the logarithms of the cells). “≥”, “≤”: runs of the method, or of full fine-tuning, had their lowest loss "
    "at the last validation, so the ratio is a bound; “?”: runs of both. “Lowest loss” tells whether the two ended at "
    "the same loss: a method that learns little is soon near a loss that is high."
)
TAKEN = (
    "Geometric means over the tasks and seeds. “Still improving”: runs whose lowest loss was at their last validation; "
    "they might have gone lower, and took at least as much."
)
HEADED = {"near": "within 1 %", "best": "to lowest"}
DRAWN = {("near", "steps"): "Steps", ("near", "seconds"): "Seconds"}


def section(evidence: Evidence) -> Section | None:
    """The section, where learning curves are fine enough."""
    found = convergences(evidence.table, evidence.curves)
    if not found:
        return None
    places = [(place, list(held)) for place, held in groupby(found, lambda each: (each.model, each.machine_class))]
    figures = {}
    for number, ((model, machine), held) in enumerate(places):
        shown = [each for each in held if any(pace.ratios for pace in _others(each))]
        if shown:
            figures[f"{model}, {machine}: to the first validation {NEAR}, as multiples of full fine-tuning"] = partial(
                figure, shown, evidence.looks, f"convergence-{number}"
            )
    return Section(
        "convergence",
        "Convergence",
        ABOUT,
        tuple(sheet for place, held in places for sheet in _sheets(", ".join(place), held)),
        figures,
        tuple(remark for each in found for remark in _remarks(each)),
        [line for each in found for line in _data(each)],
    )


def _sheets(place: str, held: Sequence[Convergence]) -> Iterator[Sheet]:
    ratios = [(pace.method, each.size, *_beside(pace, each)) for each in held for pace in _others(each) if pace.ratios]
    if ratios:
        keys = [(goal, measure) for measure in ("steps", "seconds") for goal in GOALS]
        headings = ("Method", "Rows", *(f"{m.capitalize()} {HEADED[g]}" for g, m in keys), "Lowest loss")
        yield Sheet(f"{place}: multiples of full fine-tuning", headings, 2, tuple(ratios), RATIOS)
    taken = [(pace.method, each.size, *_took(pace)) for each in held for pace in each.paces if pace.runs]
    if taken:
        columns = (f"{measure.capitalize()} {HEADED[goal]}" for measure in MEASURES for goal in GOALS)
        headings = ("Method", "Rows", *columns, "Still improving")
        yield Sheet(f"{place}: what training took", headings, 2, tuple(taken), TAKEN)


def _others(held: Convergence) -> list[Pace]:
    return [pace for pace in held.paces if pace.method != held.full]


def _beside(pace: Pace, held: Convergence) -> Iterator[str]:
    mark = _mark(pace, next(each for each in held.paces if each.method == held.full))
    for measure in ("steps", "seconds"):
        for goal in GOALS:
            yield _ratio(pace.ratios.get((goal, measure)), mark)
    yield _ratio(pace.loss, "")


def _mark(pace: Pace, full: Pace) -> str:
    return {(True, False): "≥ ", (False, True): "≤ ", (True, True): "? "}.get((pace.still > 0, full.still > 0), "")


def _ratio(ratio: Ratio | None, mark: str) -> str:
    if ratio is None:
        return ABSENT
    ends = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"{mark}{ratio.mean:.2f}{ends}"


def _took(pace: Pace) -> Iterator[str]:
    for measure in MEASURES:
        for goal in GOALS:
            value = pace.taken.get((goal, measure))
            digits = ".1f" if measure == "seconds" and value is not None and value < 100 else ",.0f"
            yield ABSENT if value is None else humane(value) if measure == "tokens" else format(value, digits)
    yield f"{pace.still} of {pace.runs}"


def _remarks(held: Convergence) -> Iterator[str]:
    """What cannot be told, and why."""
    about = f"{held.model}, {held.size} training rows, {held.machine_class}"
    if held.full is None:
        yield f"{about}: without full fine-tuning, nothing is compared with it."
    fewest, most = held.validations
    counts = str(most) if fewest == most else f"{fewest} to {most}"
    runs, still = sum(pace.runs for pace in held.paces), sum(pace.still for pace in held.paces)
    yield f"{about}: {counts} validations a run; {still} of {runs} runs were still improving when training ended."
    yield from (f"{about}: {text}" for text in lacking((pace.method, pace.missing) for pace in held.paces))
    if any(pace.missing for pace in held.paces if pace.method == held.full):
        yield f"{about}: cells that {held.full} lacks are not compared."


def _data(held: Convergence) -> Iterator[dict[str, Any]]:
    """A line for each method."""
    for pace in held.paces:
        line: dict[str, Any] = {"model": held.model, "machine_class": held.machine_class, "size": held.size}
        line |= {"method": pace.method, "runs": pace.runs, "still_improving": pace.still}
        line |= {f"{measure}_to_{goal}": value for (goal, measure), value in pace.taken.items()}
        line |= {f"{measure}_to_{goal}_ratio": vars(ratio) for (goal, measure), ratio in pace.ratios.items()}
        yield line | {"loss_ratio": pace.loss and vars(pace.loss), "missing": list(map(str, pace.missing))}


def figure(held: Sequence[Convergence], looks: Mapping[str, Style], name: str) -> str:
    """Ratios to full fine-tuning with their intervals: steps and seconds side by side, train sizes one below another.

    `name` keeps the ids of several figures on a page apart.
    """
    shown = [[pace for pace in _others(each) if pace.ratios] for each in held]
    heights = [0.24 * len(paces) + 0.35 for paces in shown]
    names = [pace.method for paces in shown for pace in paces]
    with drawing((7.6 + beside(names), sum(heights) + 0.5)) as canvas:
        grid = canvas.subplots(
            len(held), len(DRAWN), sharex="col", sharey="row", squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        for row, each, paces in zip(grid, held, shown, strict=True):
            for axes, key in zip(row, DRAWN, strict=True):
                _dots(axes, paces, key, looks)
            row[0].set_ylabel(f"{each.size} rows")
        for axes, heading in zip(grid[-1], DRAWN.values(), strict=True):
            axes.set_xlabel(f"{heading}, × full")
            _scale(axes)
        return svg(canvas, name, "Steps and seconds to come near the lowest loss, as multiples of full fine-tuning")


def _dots(axes: "Axes", paces: Sequence[Pace], key: tuple[str, str], looks: Mapping[str, Style]) -> None:
    frame(axes, "", "")
    axes.set_xscale("log")
    axes.axvline(1, color=INK, lw=0.8, ls=":")
    for y, pace in enumerate(paces):
        ratio = pace.ratios.get(key)
        if ratio is not None:
            colour, marker, _ = looks[pace.method]
            low, high = ratio.low or ratio.mean, ratio.high or ratio.mean
            sides = [[ratio.mean - low], [high - ratio.mean]]
            axes.errorbar(ratio.mean, y, xerr=sides, fmt=marker, ms=5, color=colour, capsize=2, lw=1.2)
    axes.set_yticks(range(len(paces)), [pace.method for pace in paces])
    axes.set_ylim(len(paces) - 0.5, -0.5)


def _scale(axes: "Axes") -> None:
    """The axis of ratios, once all is drawn."""
    # From half to double at least, or a few percent would look like much.
    low, high = axes.get_xlim()
    low, high = min(low, 0.45), max(high, 2.2)
    ticks = [digit * 10.0**power for power in range(-9, 10) for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
