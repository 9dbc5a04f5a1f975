"""Who has the highest PSCP at which exponents.

The logarithm of a PSCP is a straight line in an exponent, whichever its form, so the methods that lead as one exponent
grows are the upper edge of some lines, and where the lead changes hands is computed, not searched for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from peftbench.studies.pscp import burden
from peftbench.studies.pscp_board import Paid, Pscp
from peftbench.studies.pscp_weights import WeightSet

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
class Line:
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
    lines: Mapping[str, Line]

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
        used: the set's constants, from `peftbench.studies.pscp_board.constants`.
        scores: from `peftbench.studies.pscp_board.penalised`; methods without one are left out. Where fewer
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
    lines = {ALL: {name: Line(starts[name], sum(burdens[name].values())) for name in held}}
    for cost in weights.terms if len(weights.terms) > 1 else ():
        others = {c: exponent for c, (_, exponent) in weights.terms.items() if c != cost}
        lines[cost] = {
            name: Line(starts[name] - sum(beta * burdens[name][c] for c, beta in others.items()), burdens[name][cost])
            for name in held
        }
    return tuple(Sweep(weights.name, varied, winners(each), each) for varied, each in lines.items())


def winners(lines: Mapping[str, Line]) -> tuple[Span, ...]:
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
