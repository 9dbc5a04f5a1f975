"""Who has the highest PSCP at which exponents.

The logarithm of a PSCP is a straight line in an exponent, whichever its form, so the methods that lead as one exponent
grows are the upper edge of some lines, and where the lead changes hands is computed, not searched for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftbench.studies._figures import (
    REFERENCE,
    WIDTH,
    MethodEncodings,
    Rows,
    Style,
    chart,
    choosable,
    method_encodings,
    tall_enough,
    tooltip,
    vega_spec,
)
from peftbench.studies._pscp_costs import Paid, Pscp
from peftbench.studies._pscp_weights import WeightSet
from peftbench.studies.pscp import burden
from peftbench.studies.report_blocks import Figure

if TYPE_CHECKING:
    import altair as alt

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
STEPS = 60
"""Of a curve."""
BAR = 24
"""Pixels of a row of bars; a name has no room in a narrower bar."""


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


def sensitivity_figures(board: "Leaderboard", looks: Mapping[str, Style]) -> tuple[Figure, ...]:
    """A figure for each weight set that has a PSCP.

    Above, every method's PSCP against one exponent for all costs; below, a row for each exponent that is varied with
    the methods that lead.
    """
    found = ((weights, [s for s in board.sensitivity if s.weights == weights.name]) for weights in board.weights)
    return tuple(_figure(f"PSCP {weights}: {board.title}", weights, held, looks) for weights, held in found if held)


def _figure(title: str, weights: WeightSet, held: list[Sweep], looks: Mapping[str, Style]) -> Figure:
    import altair as alt

    last = {method: line.at(HIGHEST) for method, line in held[0].lines.items()}
    encoded = method_encodings({method: looks[method] for method in sorted(last, key=lambda name: -last[name])})
    made = alt.vconcat(_curves(held[0], encoded), _strip(weights, held, encoded)).resolve_scale(x="shared")
    words = f"PSCP ({weights}) against its exponents, and which method leads"
    return Figure(title, vega_spec(made), words)


def _x(field: str, title: str | None) -> "alt.X":
    import altair as alt

    return alt.X(field, scale=alt.Scale(domain=[LOWEST, HIGHEST], nice=False), title=title)


def _curves(sweep: Sweep, encoded: MethodEncodings) -> "alt.LayerChart | alt.FacetChart":
    import altair as alt

    exponents = [LOWEST + (HIGHEST - LOWEST) * i / STEPS for i in range(STEPS + 1)]
    rows: Rows = [
        {"method": method, "exponent": exponent, "pscp": line.at(exponent)}
        for method, line in sweep.lines.items()
        for exponent in exponents
    ]
    x, y = _x("exponent:Q", None), alt.Y("pscp:Q", title="PSCP, one exponent for all costs")
    lines = chart(rows).mark_line().encode(x=x, y=y, **encoded.line)
    shown = tooltip(Method="method:N", Exponent="exponent:Q|.2f", PSCP="pscp:Q|.4~g")
    few = chart([row for i, row in enumerate(rows) if i % (STEPS + 1) % (STEPS // 5) == 0])
    points = choosable(few.mark_point(filled=True).encode(x=x, y=y, tooltip=shown, **encoded.point))
    crossed = chart([{"exponent": each} for each in sweep.crossings]).mark_rule(style=REFERENCE).encode(x=x)
    return alt.layer(crossed, lines, points).properties(width=WIDTH, height=tall_enough(sweep.lines))


def _strip(weights: WeightSet, held: list[Sweep], encoded: MethodEncodings) -> "alt.LayerChart | alt.FacetChart":
    """A row of bars for each sweep, with the names that have room; triangles mark the set's own exponents."""
    import altair as alt

    rows: Rows = [
        {"varied": sweep.varied, "from": span.low, "to": span.high, "middle": (span.low + span.high) / 2}
        | {"method": span.winners[0], "said": " and ".join(span.winners)}
        for sweep in held
        for span in sweep.spans
    ]
    own: Rows = [{"varied": sweep.varied, "own": _own_exponent(weights, sweep)} for sweep in held]
    y = alt.Y("varied:N", sort=[sweep.varied for sweep in held], title=None)
    x = _x("from:Q", "Exponent").axis(grid=False)
    wide = WIDTH / (HIGHEST - LOWEST)
    bars = (
        chart(rows)
        .mark_bar(fillOpacity=0.3)
        .encode(x=x, x2="to:Q", y=y, color=encoded.plain["color"])
        .encode(tooltip=tooltip(Varied="varied:N", Leads="said:N", From="from:Q|.3g", To="to:Q|.3g"))
    )
    names = (
        chart(rows)
        .transform_filter(f"(datum.to - datum.from) * {wide} > {BAR}")
        .mark_text(limit={"expr": f"(datum.to - datum.from) * {wide} - 4"})
        .encode(x=_x("middle:Q", "Exponent"), y=y, text="said:N")
    )
    marks = (
        chart([row for row in own if LOWEST <= row["own"] <= HIGHEST])
        .mark_point(style=REFERENCE, shape="triangle-up", filled=True, yOffset=BAR // 2)
        .encode(x=_x("own:Q", "Exponent"), y=y)
    )
    return alt.layer(bars, bars.mark_bar(filled=False), names, marks).properties(width=WIDTH, height=alt.Step(BAR))


def _own_exponent(weights: WeightSet, sweep: Sweep) -> float:
    """The exponent of the set that is varied; not a number where several that differ are."""
    exponents = {exponent for cost, (_, exponent) in weights.terms.items() if sweep.varied in (ALL, cost)}
    return exponents.pop() if len(exponents) == 1 else math.nan
