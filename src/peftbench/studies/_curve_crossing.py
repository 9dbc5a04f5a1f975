"""Where the difference of two methods changes sign as the number of training rows grows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from peftbench.stats.intervals import Estimate
from peftbench.stats.parametric_bootstrap import Floats, ends, noise


@dataclass(frozen=True)
class Crossing:
    """A change of sign at about `rows` rows, with the 95 % interval from `low` to `high`.

    `first_below`: the first method is better with fewer rows and the second with more; if false, the reverse.
    `after` and `before` are the nearest numbers of rows on both sides at which the interval of the difference excludes
    0.
    """

    rows: float
    low: float
    high: float
    first_below: bool
    after: int
    before: int


def sign(difference: Estimate) -> int:
    """Return 1 or -1 if the 95 % interval lies above or below 0, else 0."""
    interval = difference.interval()
    return int(interval.low is not None and interval.low > 0) - int(interval.high is not None and interval.high < 0)


def crossings(
    rows: Sequence[int], differences: Sequence[Estimate], generator: np.random.Generator
) -> tuple[Crossing, ...]:
    """Return the changes of sign of a difference, fewest rows first, for which intervals on both sides exclude 0.

    Between two such sizes the difference is interpolated linearly in the logarithm of the rows. If it changes sign
    several times between them, the parts before and after the crossing are as long as all segments with the first and
    with the second sign.
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
    """Return, for each line, the first of `x` plus the length on which the line is above 0.

    `heights` has a row per value of `x` and a column per line.
    """
    positive, size = np.maximum(heights, 0), np.abs(heights)
    both = size[:-1] + size[1:]
    # Exact for segments above 0, below 0 and crossing 0; a segment that lies on 0 counts half.
    share = np.divide(positive[:-1] + positive[1:], both, out=np.full(both.shape, 0.5), where=both > 0)
    length: Floats = x[0] + np.diff(x) @ share
    return length
