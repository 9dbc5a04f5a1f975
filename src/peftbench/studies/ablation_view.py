"""Where it pays to adapt: scores of one method on several choices of layers and modules, as tables and a heat map."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from peftbench.core.jsonable import plain
from peftbench.report.columns import ABSENT, humane, interval_text
from peftbench.report.tables import lacking
from peftbench.stats.intervals import Interval
from peftbench.studies.ablation import BASE, Ablation, Placement, ablations
from peftbench.studies.figures import COLOURS, GRID, INK, drawing, frame, svg
from peftbench.studies.groups import groups
from peftbench.studies.report_data import Evidence, Section, Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, HIGH = 1.6, 0.5
"""Inches of a cell of the heat map."""
ABOUT = (
    "One method on several choices of layers and modules, its other arguments alike: mean over the same tasks and "
    "seeds with its 95 % interval. Win, loss and “not shown to differ” are of the paired difference to the full "
    "placement, at 5 % after Holm's correction over the placements; its interval is its own."
)
PER_MILLION = f"Points per million: the gain over {BASE} for a million trainable parameters, with its 95 % interval."
NO_BASE = f"No points per million: {BASE} was not run on all these tasks and seeds, and a score counts from no zero."
NO_FULL = "No differences: no placement is on all layers."


def section(evidence: Evidence) -> Section | None:
    """The section; none where no method has two placements."""
    found = [(str(group), one) for group in groups(evidence.table) for one in ablations(group.runs)]
    if not found:
        return None
    sheets = [sheet for where, one in found for sheet in (_sheet(where, one), _matrix(where, one)) if sheet]
    return Section(
        name="ablation",
        title="Where to adapt",
        about=ABOUT,
        sheets=tuple(sheets),
        figures=_figures(found),
        remarks=tuple(
            f"{_title(where, one)}: {text}"
            for where, one in found
            for text in lacking((str(place), place.missing) for place in one.placements)
        ),
        data=[{"runs": where, **plain(one)} for where, one in found],
    )


def _title(where: str, one: Ablation) -> str:
    return f"{one.method}, {where}"


def _sheet(where: str, one: Ablation) -> Sheet:
    headings = ["Layers", "Modules", "Score", "Trainable"]
    headings += [*(["Points per million"] if one.base else []), *(["To the full one", "Verdict"] if one.full else [])]
    lines = []
    for place in one.placements:
        line = [place.layers, place.modules, interval_text(place.score), _parameters(place)]
        line += [_signed(place.per_million)] if one.base else []
        line += [_signed(place.to_full), "full" if place is one.full else _verdict(place)] if one.full else []
        lines.append(tuple(line))
    notes = [f"Tasks: {', '.join(one.tasks)}.", PER_MILLION if one.base else NO_BASE, *([] if one.full else [NO_FULL])]
    return Sheet(_title(where, one), tuple(headings), 2, tuple(lines), " ".join(notes))


def _parameters(place: Placement) -> str:
    return ABSENT if place.parameters is None else humane(place.parameters)


def _verdict(place: Placement) -> str:
    return "not shown to differ" if place.verdict == "tie" else place.verdict or ABSENT


def _signed(interval: Interval | None) -> str:
    """A difference in three digits, as it may be large where parameters are few, with its interval."""
    return interval_text(interval, "+.3g")


def _matrix(where: str, one: Ablation) -> Sheet | None:
    """Layers by modules; `None` where only one of them varies."""
    layers, modules, held = _cells(one)
    if min(len(layers), len(modules)) < 2:
        return None
    lines = [
        (row, *(interval_text(held[row, column].score) if (row, column) in held else ABSENT for column in modules))
        for row in layers
    ]
    return Sheet(f"Layers by modules: {_title(where, one)}", ("Layers", *modules), 1, tuple(lines))


def _cells(one: Ablation) -> tuple[list[str], list[str], dict[tuple[str, str], Placement]]:
    """Layers and modules in the order of the placements, and the placement of each pair that there is."""
    held = {(place.layers, place.modules): place for place in one.placements}
    return list(dict.fromkeys(row for row, _ in held)), list(dict.fromkeys(column for _, column in held)), held


def _figures(found: Sequence[tuple[str, Ablation]]) -> dict[str, Callable[[], str]]:
    return {
        _title(where, one): partial(_heat, one, f"ablation-{number}")
        for number, (where, one) in enumerate(found)
        if any(place.score for place in one.placements)
    }


def _heat(one: Ablation, name: str) -> str:
    """The scores as a map, the stronger the colour the higher; the text is what the table says."""
    layers, modules, held = _cells(one)
    with drawing((max(7.6, 1.5 + WIDE * len(modules)), 0.8 + HIGH * len(layers))) as figure:
        axes = figure.subplots()
        scores = [place.score.mean for place in held.values() if place.score]
        low, high = min(scores), max(scores)
        for (row, column), place in held.items():
            at = (modules.index(column), layers.index(row))
            share = (place.score.mean - low) / (high - low) if place.score and high > low else 0.0
            _patch(axes, at, share if place.score else None, f"{interval_text(place.score)}\n{_parameters(place)}")
        axes.set_xlim(-0.5, len(modules) - 0.5)
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.set_xticks(range(len(modules)), modules)
        axes.set_yticks(range(len(layers)), layers)
        frame(axes, "Modules", "Layers")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        return svg(figure, name, f"Scores of {one.method} by layers and modules, with the parameters that are trained")


def _patch(axes: "Axes", at: tuple[int, int], share: float | None, text: str) -> None:
    from matplotlib.patches import Rectangle

    # Light enough for the ink of either theme to be read on it.
    colour = "none" if share is None else (COLOURS[0], 0.08 + 0.47 * share)
    axes.add_patch(Rectangle((at[0] - 0.48, at[1] - 0.46), 0.96, 0.92, facecolor=colour, edgecolor=GRID, lw=0.6))
    axes.text(*at, text, ha="center", va="center", fontsize=8, color=INK)
