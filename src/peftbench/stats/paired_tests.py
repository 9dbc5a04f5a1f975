"""Pairwise comparisons of methods, corrected for the number of pairs.

Of 45 pairs of ten equal methods, two would be "different" at 95 % by chance. Verdicts therefore use p-values adjusted
by Holm (1979) over all compared pairs: the probability of any false win is then at most 5 %, if variances from few
seeds are accurate (measured: docs/measures/statistics.md).

With `variance_shrinkage.FEWEST` methods or more, variances over seeds are moderated by those of the other methods, and
the variance of a difference is the sum of two: seeds are not paired, in exchange for more degrees of freedom. With
fewer methods, seeds are paired. Test rows are always paired.
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
    """The comparison of two methods on the same tasks and seeds, with the verdict on the first.

    `difference` is `first` minus `second` with its uncorrected 95 % interval; `variances` are those of the difference,
    over seeds and over test rows. `p` corresponds to that interval, `adjusted` is Holm's over all pairs. The verdict
    `tie` means not shown to differ. If a row error is unknown, it is a tie, and `p`, `adjusted` and `variances` are
    `None`.
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
    """Compare every pair of methods on the same tasks and seeds, in the given order.

    `fixed` are methods that train nothing; their seeds have no spread and are not used for moderation. Raises
    `ValueError`, with the tasks, for methods that do not have the same cells.
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
    """The p-value of a difference, Holm's adjusted p-value, and the verdict: a tie if they are unknown."""

    p: float | None
    adjusted: float | None
    verdict: Verdict


def judge_differences(differences: Sequence[Estimate], alpha: float = ALPHA) -> list[Judged]:
    """Judge the significance of differences, corrected for their number."""
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
    """Return the verdicts on `method` against each of the others."""
    found = {c.second: c.verdict for c in compared if c.first == method}
    return found | {c.first: OPPOSITE[c.verdict] for c in compared if c.second == method}


def holm(p: "NDArray[np.float64] | Sequence[float]") -> "NDArray[np.float64]":
    """Return p-values adjusted for their number by Holm's step-down method."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def wilcoxon(differences: Sequence[float]) -> float:
    """Return the exact two-sided p-value of Wilcoxon's signed-rank test (1945); 1 if all differences are 0.

    Zeros are dropped, ties get mean ranks, and the distribution is over all signs of the given ranks.
    """
    from scipy.stats import rankdata

    kept = np.array([d for d in differences if d != 0.0])
    ranks = np.rint(2 * rankdata(np.abs(kept))).astype(int)  # doubled, so that mean ranks are integers
    ways = np.ones(1)
    for rank in ranks:
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways / 2
        longer[rank:] += ways / 2
        ways = longer
    positive = int(ranks[kept > 0].sum()) if len(kept) else 0
    lower = min(positive, int(ranks.sum()) - positive)
    return float(min(1.0, 2 * ways[: lower + 1].sum()))
