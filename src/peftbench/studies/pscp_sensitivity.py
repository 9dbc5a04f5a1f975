"""Who has the highest PSCP at which exponents.

The logarithm of a PSCP is a straight line in an exponent, whichever its form, so the methods that lead as one exponent
grows are the upper edge of some lines, and where the lead changes hands is computed, not searched for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftbench.studies._figures import INK, Style, drawing, frame_axes, svg
from peftbench.studies._label_layout import label_line_ends
from peftbench.studies._pscp_costs import Paid, Pscp
from peftbench.studies._pscp_weights import WeightSet
from peftbench.studies.pscp import burden

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

    from peftbench.studies.leaderboard import Leaderboard

LOWEST, HIGHEST = 0.0, 3.0
"""The exponents that are looked at."""

ALL = "all costs"
"""The sweep of one exponent for all costs."""

ALIKE = 1e-12
"""Lines that cross within this of each other cross in one point."""


@dataclass(frozen=True)
class Span:
    """Exponents from `low` to `high` and the methods that lead between them: several if they are equal throughout."""

    low: float
    high: float
    winners: tuple[str, ...]


@dataclass(frozen=True)
class LogPscpLine:
    """The natural logarithm of a method's PSCP: `start`, less `slope` times the exponent."""

    start: float
    slope: float

    def at(self, exponent: float) -> float:
        """The PSCP at an exponent."""
        return math.exp(self.start - self.slope * exponent)


@dataclass(frozen=True)
class Sweep:
    """One weight set with one exponent varied: that of the cost `varied`, the others as in the set, or of `ALL`.

    `spans` go from `LOWEST` to `HIGHEST` without a gap. `lines` is by method; it has those with a PSCP above 0.
    """

    weights: str
    varied: str
    spans: tuple[Span, ...]
    lines: Mapping[str, LogPscpLine]

    @property
    def crossings(self) -> tuple[float, ...]:
        """The exponents at which another method takes the lead."""
        return tuple(span.low for span in self.spans[1:])


def sweeps(
    weights: WeightSet, methods: Mapping[str, Paid], used: Mapping[str, float] | str, scores: Mapping[str, Pscp]
) -> tuple[Sweep, ...]:
    """The sweeps of a weight set: of all exponents together and, where there are several costs, of each alone.

    Args:
        weights: the set.
        methods: what each method got and paid.
        used: the set's constants, from `peftbench.studies._pscp_costs.pscp_constants`.
        scores: from `peftbench.studies._pscp_costs.penalised`; methods without one are left out. Where fewer
            than two have one there is no sweep.
    """
    compared = sorted(name for name, score in scores.items() if score.value is not None)
    held = {name: methods[name] for name in compared if methods[name].score > 0}
    if isinstance(used, str) or len(compared) < 2 or not held:
        return ()
    burdens = {
        name: {cost: burden(weights.form, one.costs[cost], used[cost]) for cost in weights.terms}
        for name, one in held.items()
    }
    starts = {name: math.log(one.score) for name, one in held.items()}
    lines = {ALL: {name: LogPscpLine(starts[name], sum(burdens[name].values())) for name in held}}
    for cost in weights.terms if len(weights.terms) > 1 else ():
        others = {c: exponent for c, (_, exponent) in weights.terms.items() if c != cost}
        lines[cost] = {
            name: LogPscpLine(
                starts[name] - sum(beta * burdens[name][c] for c, beta in others.items()), burdens[name][cost]
            )
            for name in held
        }
    return tuple(Sweep(weights.name, varied, winners(each), each) for varied, each in lines.items())


def winners(lines: Mapping[str, LogPscpLine]) -> tuple[Span, ...]:
    """The upper edge of some lines, at least one, from `LOWEST` to `HIGHEST`."""
    # Of those that are equal at the lowest exponent, the one that falls most slowly leads from there on.
    leader = max(lines.values(), key=lambda line: (line.start - line.slope * LOWEST, -line.slope))
    here, spans = LOWEST, []
    while here < HIGHEST:
        slower = [line for line in lines.values() if line.slope < leader.slope]
        meets = {line: max(here, (leader.start - line.start) / (leader.slope - line.slope)) for line in slower}
        there = min([*meets.values(), HIGHEST])
        if there > here:
            spans.append(Span(here, there, tuple(sorted(name for name, line in lines.items() if line == leader))))
        if there < HIGHEST:
            leader = min((line for line in slower if meets[line] <= there + ALIKE), key=lambda line: line.slope)
        here = there
    return tuple(spans)


# Presentation

ABOUT = (
    f"Who has the highest PSCP as exponents go from {LOWEST:g} to {HIGHEST:g}: one for all costs, or that of one cost "
    "with the others as in the weight set. Nothing but exponents varies; a lead may lie within the means' intervals."
)
ROW, CURVES, LABEL = 0.3, 2.6, 0.17
"""Inches: the height of a row of the strip, the least height of the curves, and what each label beside them takes."""


def leaders_text(sweep: Sweep) -> str:
    """The methods that lead, in order, with the exponents at which the lead changes."""
    *before, last = sweep.spans
    names = [f"{' and '.join(span.winners)} up to {span.high:.3g}" for span in before]
    end = " and ".join(last.winners)
    return ", ".join([*names, f"then {end}"]) if names else f"{end} throughout"


def varied(sweep: Sweep) -> str:
    """Which exponent is varied."""
    return "one for all costs" if sweep.varied == ALL else f"{sweep.varied} alone"


def sensitivity_rows(board: "Leaderboard") -> list[tuple[str, str, str]]:
    """Weight set with version, which exponent is varied, and who leads, for each sweep of the leaderboard."""
    names = {weights.name: str(weights) for weights in board.weights}
    return [(names[sweep.weights], varied(sweep), leaders_text(sweep)) for sweep in board.sensitivity]


def sensitivity_remarks(board: "Leaderboard") -> list[str]:
    """A line for each weight set: who leads as one exponent for all costs grows."""
    names = {weights.name: str(weights) for weights in board.weights}
    return [
        f"Highest PSCP ({names[sweep.weights]}), one exponent for all costs from {LOWEST:g} to {HIGHEST:g}: "
        f"{leaders_text(sweep)}."
        for sweep in board.sensitivity
        if sweep.varied == ALL
    ]


def sensitivity_figures(board: "Leaderboard", looks: Mapping[str, Style], name: str) -> dict[str, str]:
    """A figure for each weight set that has a PSCP, by its name and version.

    Above, every method's PSCP against one exponent for all costs; below, a row for each exponent that is varied with
    the methods that lead. `name` keeps the ids of several figures on a page apart.
    """
    found = {}
    for number, weights in enumerate(board.weights):
        held = [sweep for sweep in board.sensitivity if sweep.weights == weights.name]
        if held:
            found[str(weights)] = _figure(weights, held, looks, f"{name}-{number}")
    return found


def _figure(weights: WeightSet, held: list[Sweep], looks: Mapping[str, Style], name: str) -> str:
    common = held[0]
    heights = [max(CURVES, LABEL * len(common.lines) + 0.4), ROW * len(held) + 0.1]
    with drawing((7.6, sum(heights) + 0.6)) as figure:
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
        _curves(above, common, looks)
        below.set_xlim(LOWEST, HIGHEST)
        texts = _strip(below, weights, held, looks)
        figure.draw_without_rendering()
        label_line_ends(above, [(m, HIGHEST, line.at(HIGHEST), looks[m][0]) for m, line in common.lines.items()])
        figure.draw_without_rendering()
        for text, share in texts:
            # A name wider than its bar would read as the next one's; the table under the figure has them all.
            text.set_visible(text.get_window_extent().width < share * below.bbox.width - 4)
        return svg(figure, name, f"PSCP ({weights}) against its exponents, and which method leads")


def _curves(axes: "Axes", sweep: Sweep, looks: Mapping[str, Style]) -> None:
    steps = 60
    exponents = [LOWEST + (HIGHEST - LOWEST) * i / steps for i in range(steps + 1)]
    for method, line in sweep.lines.items():
        colour, marker, dash = looks[method]
        axes.plot(
            exponents,
            [line.at(exponent) for exponent in exponents],
            dash,
            color=colour,
            marker=marker,
            ms=4,
            markevery=steps // 5,
            lw=1.4,
        )
    for exponent in sweep.crossings:
        axes.axvline(exponent, color=INK, lw=0.8, ls=":")
    frame_axes(axes, "", "PSCP, one exponent for all costs")


def _strip(
    axes: "Axes", weights: WeightSet, held: list[Sweep], looks: Mapping[str, Style]
) -> "list[tuple[Text, float]]":
    """A row of bars for each sweep; the names on them, each with its bar's share of the width."""
    texts = []
    for row, sweep in enumerate(held):
        for span in sweep.spans:
            colour = looks[span.winners[0]][0]
            axes.barh(row, span.high - span.low, left=span.low, height=0.72, color=(colour, 0.3), edgecolor=colour)
            middle, name = (span.low + span.high) / 2, " and ".join(span.winners)
            text = axes.text(middle, row, name, ha="center", va="center", fontsize=8, color=INK)
            texts.append((text, (span.high - span.low) / (HIGHEST - LOWEST)))
        own = _own_exponent(weights, sweep)
        if LOWEST <= own <= HIGHEST:
            axes.plot(own, row + 0.36, "^", color=INK, ms=4, clip_on=False)
    axes.set_yticks(range(len(held)), [sweep.varied for sweep in held])
    axes.set_ylim(len(held) - 0.5, -0.5)
    frame_axes(axes, "Exponent", "")
    axes.grid(visible=False)
    axes.tick_params(left=False)
    return texts


def _own_exponent(weights: WeightSet, sweep: Sweep) -> float:
    """The exponent of the set that is varied; not a number where several that differ are."""
    exponents = {exponent for cost, (_, exponent) in weights.terms.items() if sweep.varied in (ALL, cost)}
    return exponents.pop() if len(exponents) == 1 else math.nan
