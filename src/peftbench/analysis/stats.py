"""95 % intervals of mean scores and of paired differences, in closed form.

Two things make a score uncertain: the seed of the run and the sample of test rows. The seeds of a cell share their
test rows, so more seeds make the first smaller and leave the second as it is: the variance of a cell's mean is s²/n
over its n seeds plus the mean of the squared standard errors over rows. Degrees of freedom follow Welch (1947) and
Satterthwaite (1946); the row part, itself an estimate from many rows, counts as known. Nothing is corrected for many
comparisons. The approximation is weakest with two seeds of one task whose spread is far above the row error: a nominal
95 % then covers 87 %; with three seeds, or two tasks, it covers at least 93 %.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

Runs = Mapping[int, tuple[float, float]]
"""The runs of one cell: seed to (score, standard error over test rows; NaN where unknown)."""


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, in points of score. `low` and `high` are `None` where the row error is unknown.

    `seeds` is the fewest seeds of any cell in it; with 1 the interval holds the row error alone.
    """

    mean: float
    low: float | None
    high: float | None
    df: float
    seeds: int

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class Estimate:
    """A mean and the independent parts of its variance, each as (variance, degrees of freedom); none: unknown."""

    mean: float
    parts: tuple[tuple[float, float], ...]
    seeds: int

    def interval(self, level: float = 0.95) -> Interval:
        """Student's t interval that covers the true mean with probability `level`."""
        from scipy.special import stdtrit

        total = sum(v for v, _ in self.parts)
        spread = sum(v * v / df for v, df in self.parts)
        df = total * total / spread if spread else math.inf
        if not self.parts:
            return Interval(self.mean, None, None, df, self.seeds)
        half = float(stdtrit(df, (1 + level) / 2)) * math.sqrt(total)
        return Interval(self.mean, self.mean - half, self.mean + half, df, self.seeds)


def cell(runs: Runs) -> Estimate:
    """The mean score of one cell over its seeds. Raises `ValueError` without runs."""
    if not runs:
        raise ValueError("a cell needs at least one run")
    scores = [score for score, _ in runs.values()]
    rows = [error**2 for _, error in runs.values() if not math.isnan(error)]
    n = len(scores)
    seeds = ((variance(scores) / n, n - 1.0),) if n > 1 else ()
    return Estimate(fmean(scores), (*seeds, (fmean(rows), math.inf)) if rows else (), n)


def difference(first: Runs, second: Runs) -> Estimate:
    """`first` minus `second` on one task, paired by seed. Raises `ValueError` if their seeds differ.

    The row variances of the two are added as if they had been tested on different rows. They share them, which makes
    the true variance smaller, so the interval is rather too wide than too narrow.
    """
    if first.keys() != second.keys():
        raise ValueError(f"not paired: seeds {sorted(first)} and {sorted(second)}")
    return cell({s: (first[s][0] - second[s][0], math.hypot(first[s][1], second[s][1])) for s in first})


def over_tasks(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of independent estimates, one per task; unknown as soon as one of them is."""
    n = len(estimates)
    known = all(e.parts for e in estimates)
    parts = tuple((v / n**2, df) for e in estimates for v, df in e.parts) if known else ()
    return Estimate(fmean(e.mean for e in estimates), parts, min(e.seeds for e in estimates))
