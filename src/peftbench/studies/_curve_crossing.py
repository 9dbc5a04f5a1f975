"""Where the difference of two methods changes sign as the number of training rows grows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from peftbench.stats.intervals import Estimate
from peftbench.stats.parametric_bootstrap import Floats, ends, noise


@dataclass(frozen=True)
class Crossing:
    """A change of sign at about `rows` rows, between `low` and `high` (95 %).

    `first_below`: the first of the two methods is better with fewer rows, the second with more; else the other way.
    `after` and `before` are the nearest numbers of rows at which the interval of the difference says so.
    """

    rows: float
    low: float
    high: float
    first_below: bool
    after: int
    before: int


def sign(difference: Estimate) -> int:
    """1 or -1 where the 95 % interval is on one side of 0, else 0."""
    interval = difference.interval()
    return int(interval.low is not None and interval.low > 0) - int(interval.high is not None and interval.high < 0)


def crossings(
    rows: Sequence[int], differences: Sequence[Estimate], generator: np.random.Generator
) -> tuple[Crossing, ...]:
    """The changes of sign of a difference by number of rows, fewest first, that intervals on both sides show.

    Between two such sizes the difference is interpolated in the logarithm of the rows. Where it changes sign more than
    once between them, the point is put where both signs have the length that they have together.
    """
    told = [(i, sign(each)) for i, each in enumerate(differences) if sign(each)]
    found = []
    for (i, before), (j, after) in pairwise(told):
        if before != after:
            x = np.log(rows[i : j + 1])
            means = np.array([[each.mean] for each in differences[i : j + 1]])
            drawn = means + np.array([noise(each, generator) for each in differences[i : j + 1]])
            low, high = ends(_where(x, before * drawn))
            point, low, high = (float(np.exp(at)) for at in (_where(x, before * means)[0], low, high))
            found.append(Crossing(point, low, high, before > 0, after=rows[i], before=rows[j]))
    return tuple(found)


def _where(x: Floats, heights: Floats) -> Floats:
    """The first of `x` plus the length on which lines through `heights` (of each `x`, a column a line) are above 0."""
    positive, size = np.maximum(heights, 0), np.abs(heights)
    both = size[:-1] + size[1:]
    # Right for a segment above 0, below 0, and with its zero inside; one that lies on 0 counts as half.
    share = np.divide(positive[:-1] + positive[1:], both, out=np.full(both.shape, 0.5), where=both > 0)
    length: Floats = x[0] + np.diff(x) @ share
    return length
