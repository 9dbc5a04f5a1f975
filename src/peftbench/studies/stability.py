"""How far a method's runs differ by nothing but the seed, and how many of them come to nothing.

The seeds of a cell share their test rows, so their spread is that of training (which rows of the training set, in which
order, from which start), as far as this test set can see it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING

from peftbench.stats.intervals import Scores
from peftbench.studies.chance import at_chance
from peftbench.studies.coverage import scores_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Spread:
    """A standard deviation over seeds in points of score, pooled over cells, with its 95 % interval."""

    sd: float
    low: float
    high: float
    df: int


@dataclass(frozen=True)
class Worst:
    """The seed with the lowest mean score over the tasks; `below`: how many points under the mean of all seeds."""

    seed: int
    mean: float
    below: float


@dataclass(frozen=True)
class Stability:
    """What the seeds did to a method.

    `spread` and `worst` are `None` without two seeds of a task that have a score; `worst` is among the seeds that have
    one on each task of the method. `ended`: how many runs ended with each status. `judged`: of how many runs is known
    whether they are at chance, as `at_chance` of them are; those without a score are not.
    """

    method: str
    spread: Spread | None
    worst: Worst | None
    runs: int
    ended: Mapping[str, int]
    judged: int
    at_chance: int


def spread(cells: Iterable[Sequence[float]], level: float = 0.95) -> Spread | None:
    """The standard deviation within cells of scores, pooled; `None` if no cell has two.

    The interval is that of the chi-square distribution: for normal scores whose variance is the same in every cell.
    """
    from scipy.special import chdtri

    several = [scores for scores in cells if len(scores) > 1]
    df = sum(len(scores) - 1 for scores in several)
    if not df:
        return None
    squares = sum(variance(scores) * (len(scores) - 1) for scores in several)
    low, high = (math.sqrt(squares / float(chdtri(df, tail))) for tail in ((1 - level) / 2, (1 + level) / 2))
    return Spread(math.sqrt(squares / df), low, high, df)


def worst(scores: Scores) -> Worst | None:
    """The worst of the seeds that have a score on every task; `None` if fewer than two have. The first of equals."""
    shared = sorted(set.intersection(*(set(runs) for runs in scores.values()))) if scores else []
    if len(shared) < 2:
        return None
    means = {seed: fmean(runs[seed].score for runs in scores.values()) for seed in shared}
    seed = min(shared, key=lambda one: means[one])
    return Worst(seed, means[seed], fmean(means.values()) - means[seed])


def stability(runs: "pd.DataFrame") -> list[Stability]:
    """The stability of each method of runs with a column `label` (`peftbench.studies.groups`), steadiest first."""
    found = [_of(str(label), own) for label, own in runs.groupby("label")]
    return sorted(found, key=lambda one: (one.spread.sd if one.spread else math.inf, one.method))


def _of(label: str, runs: "pd.DataFrame") -> Stability:
    scores = scores_of(runs, ())
    chance = at_chance(runs[runs["status"] == "ok"])
    return Stability(
        method=label,
        spread=spread([run.score for run in cell.values()] for cell in scores.values()),
        worst=worst(scores),
        runs=len(runs),
        ended={str(status): int(count) for status, count in runs["status"].value_counts().sort_index().items()},
        judged=int(chance.notna().sum()),
        at_chance=int(chance.sum()),
    )
