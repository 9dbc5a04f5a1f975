"""95 % intervals of mean scores and of paired differences, in closed form, and the p-values that belong to them.

Two things make a score uncertain: the seed of the run and the sample of test rows. The seeds of a cell share their
test rows, so more seeds make the first smaller and leave the second as it is: the variance of a cell's mean is s²/n
over its n seeds plus the mean of the squared standard errors over rows.

Half of an interval is the root of the sum of the squares of two halves: Student's t for the part of the seeds, with
degrees of freedom by Welch (1947) and Satterthwaite (1946) over the tasks, and the normal quantile for the part of the
rows, which is an estimate from many rows and counts as known (Howe 1974; Zou and Donner 2008). To give the sum of both
one number of degrees of freedom is too bold: with two seeds of one task it covers 87 % for a nominal 95 %, as seeds
that happen to agree make their own spread look known. Simulated (`tests/test_stats_simulated.py`), these intervals
cover 93 to 98 % with three seeds or more, and 94 to 99 % with two.
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
"""The least and the greatest value that a score, or a difference of scores, can have."""
UNBOUNDED: Bounds = (-math.inf, math.inf)


class Run(NamedTuple):
    """What one run says: its score, the standard error of that over test rows (NaN: unknown), and their own scores.

    `rows` (`peftbench.metrics.Measured`) belong together, number by number, with those of runs on the same test rows.
    `bounds` are those of the metric.
    """

    score: float
    error: float
    rows: "NDArray[np.float64] | None" = None
    bounds: Bounds = UNBOUNDED


Runs = Mapping[int, Run]
"""The runs of one cell, by seed."""
Scores = dict[str, dict[int, Run]]
"""The runs of a method that have a score, by task and seed."""


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, in points of score. `low` and `high` are `None` where the row error is unknown.

    They end where the scale of the metric does; `standard_error` is that of the mean, whatever the scale. `df` are the
    degrees of freedom of the part of the seeds, infinite where they have no spread. `seeds` is the fewest seeds of any
    cell in it; with 1 the interval holds the row error alone.
    """

    mean: float
    low: float | None
    high: float | None
    df: float
    seeds: int
    standard_error: float | None = None

    @property
    def sides(self) -> tuple[float, float]:
        """How far the interval goes below and above the mean; 0 where that is not known."""
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return max(self.mean - self.low, 0.0), max(self.high - self.mean, 0.0)


@dataclass(frozen=True)
class Estimate:
    """A mean and the independent parts of its variance, each as (variance, degrees of freedom); none: unknown.

    A part with finite degrees of freedom is of seeds, one with infinite of rows. The mean cannot lie outside `bounds`.
    """

    mean: float
    parts: tuple[tuple[float, float], ...]
    seeds: int
    bounds: Bounds = UNBOUNDED

    @property
    def variances(self) -> tuple[float, float, float]:
        """The variance by seeds, its degrees of freedom (infinite without spread), and the variance by rows."""
        seeds = [(v, df) for v, df in self.parts if math.isfinite(df)]
        total = sum(v for v, _ in seeds)
        spread = sum(v * v / df for v, df in seeds)
        rows = sum(v for v, df in self.parts if not math.isfinite(df))
        return total, total * total / spread if spread else math.inf, rows

    def interval(self, level: float = 0.95) -> Interval:
        """The interval that covers the true mean with probability `level`, as far as the scale goes."""
        from scipy.special import ndtri, stdtrit

        seeds, df, rows = self.variances
        if not self.parts:
            return Interval(self.mean, None, None, df, self.seeds)
        q = (1 + level) / 2
        half = math.hypot(float(stdtrit(df, q)) * math.sqrt(seeds), float(ndtri(q)) * math.sqrt(rows))
        low, high = max(self.mean - half, self.bounds[0]), min(self.mean + half, self.bounds[1])
        return Interval(self.mean, low, high, df, self.seeds, math.sqrt(seeds + rows))


def p_values(estimates: Sequence[Estimate]) -> "NDArray[np.float64]":
    """The two-sided p-value of each mean against 0: the interval of level 1 − p just touches 0. NaN where unknown."""
    if not estimates:
        return np.zeros(0)
    parts = np.array([(e.mean, *e.variances) for e in estimates]).T
    return np.where([bool(e.parts) for e in estimates], p_of(*parts), np.nan)


def p_of(
    mean: "NDArray[np.float64]", seeds: "NDArray[np.float64]", df: "NDArray[np.float64]", rows: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """The p-values of means against 0 from the two variances and the degrees of freedom of the first, of one shape.

    By bisection of the logarithm to about 1e-9 of the value; none is below 1e-100.
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
    """The mean score of one cell over its seeds. Raises `ValueError` without runs."""
    if not runs:
        raise ValueError("a cell needs at least one run")
    scores = [run.score for run in runs.values()]
    rows = [run.error**2 for run in runs.values() if not math.isnan(run.error)]
    n = len(scores)
    seeds = ((variance(scores) / n, n - 1.0),) if n > 1 else ()
    bounds = min(run.bounds[0] for run in runs.values()), max(run.bounds[1] for run in runs.values())
    return Estimate(fmean(scores), (*seeds, (fmean(rows), math.inf)) if rows else (), n, bounds)


def difference(first: Runs, second: Runs) -> Estimate:
    """`first` minus `second` on one task, paired by seed and by test row. Raises `ValueError` if their seeds differ.

    Both answered the same test rows (for the caller to know). The error over rows is that of the rows' own differences,
    averaged over the seeds first, as rows are what is drawn: what makes a row hard for both does not count. Where a run
    has no scores of rows, or of other ones, the variances are added, as of different rows: rather too much. Where the
    error of a run is not known, that of the difference is not either.
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
    """The bounds of a difference."""
    return first[0] - second[1], first[1] - second[0]


def _shared_rows(first: Runs, second: Runs) -> float | None:
    """The standard error over rows of the mean difference; `None` without scores of the same rows, two or more.

    Rows that are right or wrong get two more, on which one of the two methods alone is right: of few rows on which they
    differ, or none, the error would come out too small (Agresti and Min 2005, doi 10.1002/sim.1781).
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
    """`first` minus `second`, whose seeds are independent; `rows` is the variance of the difference by test rows.

    Unknown as soon as one of the two is.
    """
    seeds = tuple(part for part in (*first.parts, *second.parts) if math.isfinite(part[1]))
    parts = (*seeds, (rows, math.inf)) if first.parts and second.parts else ()
    seeds_of_both = min(first.seeds, second.seeds)
    return Estimate(first.mean - second.mean, parts, seeds_of_both, _apart(first.bounds, second.bounds))


def over_tasks(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of independent estimates, one per task; unknown as soon as one of them is."""
    n = len(estimates)
    known = all(e.parts for e in estimates)
    parts = tuple((v / n**2, df) for e in estimates for v, df in e.parts) if known else ()
    low, high = (sum(e.bounds[end] for e in estimates) / n for end in (0, 1))
    return Estimate(fmean(e.mean for e in estimates), parts, min(e.seeds for e in estimates), (low, high))
