"""95 % intervals of mean scores and of paired differences, in closed form, and the corresponding p-values.

A score has two sources of uncertainty: the seed of the run and the sample of test rows. The seeds of a cell share their
test rows, so more seeds reduce only the first: the variance of a cell's mean is s²/n over its n seeds plus the mean of
the squared standard errors over rows.

The half-width of an interval is the root of the sum of two squared half-widths: Student's t for the part of the seeds,
with degrees of freedom by Welch (1947) and Satterthwaite (1946) over the tasks, and the normal quantile for the part of
the rows, which is estimated from many rows and treated as known (Howe 1974; Zou and Donner 2008). A single number of
degrees of freedom for the sum would be too optimistic: with two seeds of one task it covers 87 % for a nominal 95 %,
because seeds that agree by chance make their spread look well known. In simulations (`tests/test_stats_simulated.py`),
these intervals cover 93 to 98 % with three seeds or more, and 94 to 99 % with two.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


Bounds = tuple[float, float]
"""The smallest and the largest possible value of a score, or of a difference of scores."""
UNBOUNDED: Bounds = (-math.inf, math.inf)


class Run(NamedTuple):
    """The score of one run, its standard error over test rows (NaN: unknown), and the scores of the rows.

    `rows` (`peftbench.metrics.Measured`) are paired by position with those of other runs on the same test rows.
    `bounds` are those of the metric.
    """

    score: float
    error: float
    rows: "NDArray[np.float64] | None" = None
    bounds: Bounds = UNBOUNDED


Runs = Mapping[int, Run]
"""The runs of one cell, by seed."""
Scores = dict[str, dict[int, Run]]
"""The runs with a score of a method, by task and seed."""


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, in points of score. `low` and `high` are `None` if the row error is unknown.

    They are clipped to the scale of the metric; `standard_error` is not. `df` are the degrees of freedom of the part of
    the seeds, infinite without spread. `seeds` is the smallest number of seeds of a cell; with 1 the interval covers
    only the row error.
    """

    mean: float
    low: float | None
    high: float | None
    df: float
    seeds: int
    standard_error: float | None = None

    @property
    def sides(self) -> tuple[float, float]:
        """The distances of the mean to the lower and the upper end; 0 if unknown."""
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return max(self.mean - self.low, 0.0), max(self.high - self.mean, 0.0)


@dataclass(frozen=True)
class Estimate:
    """A mean and the independent parts of its variance, each as (variance, degrees of freedom); `None`: unknown.

    Parts with finite degrees of freedom are of seeds, those with infinite ones of rows. The mean is within `bounds`.
    """

    mean: float
    parts: tuple[tuple[float, float], ...]
    seeds: int
    bounds: Bounds = UNBOUNDED

    @property
    def variances(self) -> tuple[float, float, float]:
        """The variance over seeds, its degrees of freedom (infinite without spread), and the variance over rows."""
        seeds = [(v, df) for v, df in self.parts if math.isfinite(df)]
        total = sum(v for v, _ in seeds)
        spread = sum(v * v / df for v, df in seeds)
        rows = sum(v for v, df in self.parts if not math.isfinite(df))
        return total, total * total / spread if spread else math.inf, rows

    def interval(self, level: float = 0.95) -> Interval:
        """Return the interval that covers the true mean with probability `level`, clipped to the scale."""
        from scipy.special import ndtri, stdtrit

        seeds, df, rows = self.variances
        if not self.parts:
            return Interval(self.mean, None, None, df, self.seeds)
        q = (1 + level) / 2
        half = math.hypot(float(stdtrit(df, q)) * math.sqrt(seeds), float(ndtri(q)) * math.sqrt(rows))
        low, high = max(self.mean - half, self.bounds[0]), min(self.mean + half, self.bounds[1])
        return Interval(self.mean, low, high, df, self.seeds, math.sqrt(seeds + rows))


def p_values(estimates: Sequence[Estimate]) -> "NDArray[np.float64]":
    """Return the two-sided p-value of each mean against 0, NaN if unknown. The interval of level 1 − p ends at 0."""
    if not estimates:
        return np.zeros(0)
    parts = np.array([(e.mean, *e.variances) for e in estimates]).T
    return np.where([bool(e.parts) for e in estimates], p_of(*parts), np.nan)


def p_of(
    mean: "NDArray[np.float64]", seeds: "NDArray[np.float64]", df: "NDArray[np.float64]", rows: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Return p-values of means against 0, from both variances and the degrees of freedom of the first, of equal shape.

    Computed by bisection of the logarithm to a relative accuracy of about 1e-9, not below 1e-100.
    """
    from scipy.special import ndtri, stdtrit

    low, high = np.full(mean.shape, math.log(1e-100)), np.zeros(mean.shape)
    for _ in range(40):
        middle = (low + high) / 2
        tail = np.exp(middle) / 2
        wide = stdtrit(df, tail) ** 2 * seeds + ndtri(tail) ** 2 * rows > mean**2
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return np.where(mean == 0, 1.0, np.exp(high))


def cell(runs: Runs) -> Estimate:
    """Return the mean score of one cell over its seeds. Raises `ValueError` without runs."""
    if not runs:
        raise ValueError("a cell needs at least one run")
    scores = [run.score for run in runs.values()]
    rows = [run.error**2 for run in runs.values() if not math.isnan(run.error)]
    n = len(scores)
    seeds = ((variance(scores) / n, n - 1.0),) if n > 1 else ()
    bounds = min(run.bounds[0] for run in runs.values()), max(run.bounds[1] for run in runs.values())
    return Estimate(fmean(scores), (*seeds, (fmean(rows), math.inf)) if rows else (), n, bounds)


def difference(first: Runs, second: Runs) -> Estimate:
    """Return `first` minus `second` on one task, paired by seed and test row. Raises `ValueError` if the seeds differ.

    The caller must ensure that both answered the same test rows. The error over rows is that of the differences per
    row, averaged over the seeds first, because rows are the sample: the common difficulty of a row cancels. If the row
    scores are missing or not paired, the variances are added as for different rows, which is conservative. If the error
    of a run is unknown, so is that of the difference.
    """
    if first.keys() != second.keys():
        raise ValueError(f"not paired: seeds {sorted(first)} and {sorted(second)}")
    shared = _shared_rows(first, second)
    found = {}
    for seed, one in first.items():
        other = second[seed]
        apart = math.hypot(one.error, other.error)
        error = apart if shared is None or math.isnan(apart) else shared
        found[seed] = Run(one.score - other.score, error, bounds=_apart(one.bounds, other.bounds))
    return cell(found)


def _apart(first: Bounds, second: Bounds) -> Bounds:
    """Return the bounds of a difference."""
    return first[0] - second[1], first[1] - second[0]


def _shared_rows(first: Runs, second: Runs) -> float | None:
    """Return the standard error over rows of the mean difference; `None` without scores of two or more common rows.

    For binary row scores, two rows are added on which only one of the methods is right: with few or no rows on which
    the methods differ, the error would be too small (Agresti and Min 2005, doi 10.1002/sim.1781).
    """
    held = [run.rows for runs in (first, second) for run in runs.values()]
    rows = [each[~np.isnan(each)] for each in held if each is not None]
    if len(rows) < len(held) or len({np.isnan(each).tobytes() for each in held if each is not None}) > 1:
        return None
    if len(rows[0]) < 2:
        return None
    gaps = np.mean(rows[: len(first)], axis=0) - np.mean(rows[len(first) :], axis=0)
    if all(np.isin(each, (0, 100)).all() for each in rows):
        gaps = np.append(gaps, (100, -100))
    return float(gaps.std(ddof=1) / math.sqrt(len(gaps)))


def minus(first: Estimate, second: Estimate, rows: float) -> Estimate:
    """Return `first` minus `second` for independent seeds; `rows` is the variance of the difference over test rows.

    The result is unknown if one of the two is.
    """
    seeds = tuple(part for part in (*first.parts, *second.parts) if math.isfinite(part[1]))
    parts = (*seeds, (rows, math.inf)) if first.parts and second.parts else ()
    seeds_of_both = min(first.seeds, second.seeds)
    return Estimate(first.mean - second.mean, parts, seeds_of_both, _apart(first.bounds, second.bounds))


def over_tasks(estimates: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean of independent estimates, one per task; unknown if one of them is."""
    n = len(estimates)
    known = all(e.parts for e in estimates)
    parts = tuple((v / n**2, df) for e in estimates for v, df in e.parts) if known else ()
    low, high = (sum(e.bounds[end] for e in estimates) / n for end in (0, 1))
    return Estimate(fmean(e.mean for e in estimates), parts, min(e.seeds for e in estimates), (low, high))
