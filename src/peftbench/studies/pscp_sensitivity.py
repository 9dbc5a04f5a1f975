"""Sensitivity of PSCP: which method has the highest PSCP at which exponents.

In both forms the logarithm of a PSCP is linear in an exponent. The leading methods are therefore the upper envelope of
straight lines, and the exponents at which the lead changes are computed exactly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftbench.studies._figure_style import (
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
from peftbench.studies.presentation_blocks import Figure
from peftbench.studies.pscp import burden

if TYPE_CHECKING:
    import altair as alt

    from peftbench.studies.leaderboard import Leaderboard

LOWEST, HIGHEST = 0.0, 3.0
"""Range of the exponents."""

ALL = "all costs"
"""Name of the sweep of one exponent for all costs."""

ALIKE = 1e-12
"""Crossings closer than this count as one point."""


@dataclass(frozen=True)
class Span:
    """A range of exponents and the methods that lead in it; several methods if they are equal throughout."""

    low: float
    high: float
    winners: tuple[str, ...]


@dataclass(frozen=True)
class LogPscpLine:
    """The natural logarithm of a method's PSCP: `start` minus `slope` times the exponent."""

    start: float
    slope: float

    def at(self, exponent: float) -> float:
        """Return the PSCP at an exponent."""
        return math.exp(self.start - self.slope * exponent)


@dataclass(frozen=True)
class Sweep:
    """One weight set with one exponent varied: that of the cost `varied`, or one exponent for all costs (`ALL`).

    The other exponents are those of the set. `spans` cover `LOWEST` to `HIGHEST` without gaps. `lines` is by method and
    has the methods with a PSCP above 0.
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
    """Return the sweeps of a weight set: all exponents together and, if there are several costs, each alone.

    Args:
        weights: the weight set.
        methods: scores and costs of each method.
        used: the set's constants, from `peftbench.studies._pscp_costs.pscp_constants`.
        scores: PSCPs from `peftbench.studies._pscp_costs.penalised`. Methods without a PSCP are left out; with fewer
            than two methods there is no sweep.
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
    """Return the upper envelope of one or more lines, from `LOWEST` to `HIGHEST`."""
    # If lines are equal at the lowest exponent, the one with the smallest slope leads from there.
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
    f"Method with the highest PSCP as exponents go from {LOWEST:g} to {HIGHEST:g}: one exponent for all costs, or that "
    "of one cost with the others as in the weight set. Only exponents vary; a lead may lie within the intervals of the "
    "means."
)
STEPS = 60
"""Number of steps of a curve."""
BAR = 24
"""Height of a row of bars in pixels; names are only shown in bars that are wider than this."""


def leaders_text(sweep: Sweep) -> str:
    """Return the leading methods in order, with the exponents at which the lead changes."""
    *before, last = sweep.spans
    names = [f"{' and '.join(span.winners)} up to {span.high:.3g}" for span in before]
    end = " and ".join(last.winners)
    return ", ".join([*names, f"then {end}"]) if names else f"{end} throughout"


def varied(sweep: Sweep) -> str:
    """Return which exponent is varied, as text."""
    return "one for all costs" if sweep.varied == ALL else f"{sweep.varied} alone"


def sensitivity_rows(board: "Leaderboard") -> list[tuple[str, str, str]]:
    """Return weight set with version, varied exponent and leading methods for each sweep of the leaderboard."""
    names = {weights.name: str(weights) for weights in board.weights}
    return [(names[sweep.weights], varied(sweep), leaders_text(sweep)) for sweep in board.sensitivity]


def sensitivity_remarks(board: "Leaderboard") -> list[str]:
    """Return a line per weight set: the leading methods as one exponent for all costs grows."""
    names = {weights.name: str(weights) for weights in board.weights}
    return [
        f"Highest PSCP ({names[sweep.weights]}), one exponent for all costs from {LOWEST:g} to {HIGHEST:g}: "
        f"{leaders_text(sweep)}."
        for sweep in board.sensitivity
        if sweep.varied == ALL
    ]


def sensitivity_figures(board: "Leaderboard", looks: Mapping[str, Style]) -> tuple[Figure, ...]:
    """Return a figure per weight set that has sweeps.

    The upper part shows every method's PSCP against one exponent for all costs; the lower part has a row per varied
    exponent with the leading methods.
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
    """Return a row of bars per sweep, with names where they fit; triangles mark the exponents of the set."""
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
    """Return the set's value of the varied exponent; NaN if the varied exponents differ."""
    exponents = {exponent for cost, (_, exponent) in weights.terms.items() if sweep.varied in (ALL, cost)}
    return exponents.pop() if len(exponents) == 1 else math.nan
