"""Who beats whom: every pair of methods, with the number of pairs taken into account.

Of 45 pairs of ten equal methods two would be "different" at 95 % by luck alone. Verdicts are therefore by p-values
adjusted by Holm (1979) over all pairs that are compared: the chance of any false win at all is then at most 5 %, as
far as variances of few seeds are what they seem (measured: docs/measures/statistics.md).

With `moderation.FEWEST` methods or more, variances by seeds are moderated by each other, and a difference has the sum
of its two; what the pairing of seeds would save is forgone, for degrees of freedom. With fewer it is paired by seed.
Test rows are paired in both.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from peftbench.stats.intervals import Estimate, Interval, Scores, cell, difference, minus, over_tasks, p_values
from peftbench.stats.variance_shrinkage import moderated

if TYPE_CHECKING:
    from numpy.typing import NDArray

Verdict = Literal["win", "loss", "tie"]
OPPOSITE: Mapping[Verdict, Verdict] = {"win": "loss", "loss": "win", "tie": "tie"}
ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same tasks and seeds; the verdict is on the first.

    `difference` is `first` minus `second` with its own 95 % interval, not corrected, and `variances` are its two, by
    seeds and by test rows. `p` belongs to that interval, `adjusted` is Holm's over all pairs. `tie`: not shown to
    differ, as where a row error is unknown, and then `p`, `adjusted` and `variances` are `None`.
    """

    first: str
    second: str
    difference: Interval
    p: float | None
    adjusted: float | None
    verdict: Verdict
    variances: tuple[float, float] | None = None


def compare_pairs(
    methods: Mapping[str, Scores], alpha: float = ALPHA, fixed: Collection[str] = ()
) -> tuple[Comparison, ...]:
    """Every pair of methods, which all have the same tasks and seeds; in the order given.

    `fixed` are those that train nothing, whose seeds have no spread to learn from. Raises `ValueError` for methods
    that do not have the same cells, and names the tasks.
    """
    pairs = list(combinations(methods, 2))
    found = [_difference((a, methods[a]), (b, methods[b])) for a, b in pairs]
    alone = {m: over_tasks([cell(runs) for runs in tasks.values()]) for m, tasks in methods.items()} if pairs else {}
    means = moderated(alone, fixed)
    if means != alone:
        found = [minus(means[a], means[b], one.variances[2]) for (a, b), one in zip(pairs, found, strict=True)]
    return tuple(
        Comparison(a, b, estimate.interval(), judged.p, judged.adjusted, judged.verdict, _variances(estimate))
        for (a, b), estimate, judged in zip(pairs, found, judge_differences(found, alpha), strict=True)
    )


def _variances(estimate: Estimate) -> tuple[float, float] | None:
    seeds, _, rows = estimate.variances
    return (seeds, rows) if estimate.parts else None


class Judged(NamedTuple):
    """A difference's p-value, that by Holm over all that were judged together, and what is said: a tie if not known."""

    p: float | None
    adjusted: float | None
    verdict: Verdict


def judge_differences(differences: Sequence[Estimate], alpha: float = ALPHA) -> list[Judged]:
    """Which differences are significant, all of them together."""
    p = p_values(differences)
    adjusted = holm(np.where(np.isnan(p), 1.0, p))
    found = []
    for estimate, one, all_ in zip(differences, p, adjusted, strict=True):
        told: Verdict = "tie" if all_ >= alpha else "win" if estimate.mean > 0 else "loss"
        found.append(Judged(None, None, "tie") if math.isnan(one) else Judged(float(one), float(all_), told))
    return found


def _difference(first: tuple[str, Scores], second: tuple[str, Scores]) -> Estimate:
    (a, one), (b, other) = first, second
    if one.keys() != other.keys():
        lacking = ", ".join(sorted(one.keys() ^ other.keys()))
        raise ValueError(f"{a} and {b} do not have the same tasks: {lacking}")
    return over_tasks([difference(runs, other[task]) for task, runs in one.items()])


def verdicts(compared: Sequence[Comparison], method: str) -> dict[str, Verdict]:
    """What is said of `method` against each of the others."""
    found = {c.second: c.verdict for c in compared if c.first == method}
    return found | {c.first: OPPOSITE[c.verdict] for c in compared if c.second == method}


def holm(p: "NDArray[np.float64] | Sequence[float]") -> "NDArray[np.float64]":
    """p-values adjusted for their number by Holm's step-down; any below alpha is significant together with the rest."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def wilcoxon(differences: Sequence[float]) -> float:
    """The exact two-sided p-value of Wilcoxon's signed-rank test (1945); zeros are dropped, ties share their ranks.

    The distribution is that of the ranks at hand over all signs. 1 where all differences are 0.
    """
    from scipy.stats import rankdata

    kept = np.array([d for d in differences if d != 0.0])
    ranks = np.rint(2 * rankdata(np.abs(kept))).astype(int)  # twice, so that shared ranks are whole numbers
    ways = np.ones(1)
    for rank in ranks:
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways / 2
        longer[rank:] += ways / 2
        ways = longer
    positive = int(ranks[kept > 0].sum()) if len(kept) else 0
    lower = min(positive, int(ranks.sum()) - positive)
    return float(min(1.0, 2 * ways[: lower + 1].sum()))
