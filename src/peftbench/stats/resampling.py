"""Bootstrap intervals over the runs of a method (Agarwal et al. 2021, arXiv 2108.13264), with a given generator.

Runs are resampled within each task; the error over test rows, which the seeds of a task share, is added as one normal
shift of all its runs. Resampling two to five seeds underestimates their spread: a nominal 95 % covers 48 % with two
seeds of one task, 84 % with five (`tests/test_stats_simulated.py`). These intervals are descriptive and are not used
for verdicts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from peftbench.stats.intervals import Scores

FloatArray = npt.NDArray[np.float64]
Sample = list[FloatArray]
"""The scores of the runs of each task, of shape [resample, run]."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Resampled:
    """A statistic of the runs, and the ends of its interval; `None` if a row error is unknown."""

    value: float
    low: float | None
    high: float | None


def mean(sample: Sample) -> FloatArray:
    """Return the unweighted mean of the tasks' means for each resample."""
    return np.asarray(np.mean([task.mean(1) for task in sample], axis=0))


def interquartile_mean(sample: Sample) -> FloatArray:
    """Return the interquartile mean of all runs of all tasks for each resample."""
    runs = np.sort(np.concatenate(sample, axis=1), axis=1)
    cut = runs.shape[1] // 4
    return np.asarray(runs[:, cut : runs.shape[1] - cut].mean(1))


def bootstrap(
    scores: Scores,
    statistic: Callable[[Sample], FloatArray],
    generator: np.random.Generator,
    level: float = 0.95,
) -> Resampled:
    """Return a statistic of one method's runs with its percentile interval, reproducible by the generator.

    Raises `ValueError` without runs.
    """
    if not scores:
        raise ValueError("a bootstrap needs at least one run")
    value = float(statistic(_once(scores))[0])
    drawn = _drawn(scores, generator)
    return _interval(value, statistic(drawn) if _known(drawn) else None, level)


def improvement(first: Scores, second: Scores, generator: np.random.Generator, level: float = 0.95) -> Resampled:
    """Return the probability that a run of `first` scores higher than one of `second` on a task, averaged over tasks.

    Equal scores count one half; 0.5 means no difference. Raises `ValueError` if they do not have the same tasks.
    """
    if not first or first.keys() != second.keys():
        lacking = ", ".join(sorted(first.keys() ^ second.keys())) or "there are none"
        raise ValueError(f"not on the same tasks: {lacking}")
    order = sorted(first)
    one, other = ({task: scores[task] for task in order} for scores in (first, second))
    value = float(_higher(_once(one), _once(other))[0])
    drawn = [_drawn(scores, generator) for scores in (one, other)]
    return _interval(value, _higher(*drawn) if all(map(_known, drawn)) else None, level)


def _higher(one: Sample, other: Sample) -> FloatArray:
    shares = []
    for a, b in zip(one, other, strict=True):
        runs = np.ascontiguousarray(a.T)
        # Pairs in which the first is higher count twice, pairs of equal scores once. One run of the second at a time:
        # all pairs of all resamples do not fit into a processor's cache.
        twice = np.zeros(runs.shape, np.int32)
        for run in np.ascontiguousarray(b.T):
            twice += runs > run
            twice += runs >= run
        shares.append(twice.sum(0) / (2 * a.shape[1] * b.shape[1]))
    return np.asarray(np.mean(shares, axis=0))


def _once(scores: Scores) -> Sample:
    return [np.array([[run.score for run in runs.values()]]) for runs in scores.values()]


def _drawn(scores: Scores, generator: np.random.Generator) -> Sample:
    """Return resamples of the runs; all NaN for a task with an unknown row error."""
    sample = []
    for runs in scores.values():
        held = np.array([run.score for run in runs.values()])
        errors = [run.error**2 for run in runs.values() if not math.isnan(run.error)]
        shift = math.sqrt(fmean(errors)) * generator.standard_normal((RESAMPLES, 1)) if errors else math.nan
        sample.append(held[generator.integers(len(held), size=(RESAMPLES, len(held)))] + shift)
    return sample


def _known(sample: Sample) -> bool:
    # Not left to the statistic: a comparison with NaN is False, and a trimmed mean may cut NaN away.
    return not any(np.isnan(task).any() for task in sample)


def _interval(value: float, drawn: FloatArray | None, level: float) -> Resampled:
    if drawn is None:
        return Resampled(value, None, None)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Resampled(value, float(low), float(high))
