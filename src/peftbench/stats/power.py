"""The smallest difference that a grid can detect, before it is run, and what a smaller one would need.

The prediction is the interval of the difference of two methods (`peftbench.stats.paired_tests`) with independent test
rows, since the correlation over rows is unknown in advance. The degrees of freedom of the part of the seeds are the
expected ones, for two methods or for a board of methods with equal spread that moderate each other's variances.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from peftbench.stats.variance_shrinkage import expected_df

SPREAD = 2.0
"""Assumed standard deviation over seeds in points, if it was not measured."""
WORST = 0.5
"""The accuracy at which the error over rows is largest."""


@dataclass(frozen=True)
class Design:
    """The design of a comparison of two methods: seeds, and the test rows of each task.

    `accuracy` (0 to 1) is the expected one; `spread` is the standard deviation over seeds in points; `pairs` is the
    number of comparisons that share the 5 % (Holm's first step), 1 for a pair chosen in advance; `methods` is the size
    of the board. `row_variance` is the variance of the score of one test row in squared points; by default it follows
    from `accuracy`.
    """

    seeds: int
    rows: tuple[int, ...]
    spread: float = SPREAD
    accuracy: float = WORST
    pairs: int = 1
    methods: int = 2
    row_variance: float | None = None

    def __post_init__(self) -> None:
        """Validate the design. Raises `ValueError` for impossible values."""
        if self.seeds < 1 or not self.rows or min(self.rows) < 1 or self.pairs < 1:
            raise ValueError(f"a design needs seeds, test rows and pairs of at least 1: {self}")
        if self.spread < 0 or not 0 <= self.accuracy <= 1:
            raise ValueError(f"a spread is not below 0, an accuracy is from 0 to 1: {self}")


def detectable(design: Design, power: float = 0.8, level: float = 0.95) -> float:
    """Return the difference of two methods, in points, that is significant with probability `power`.

    In simulations, a nominal 80 % is 74 to 86 % with three seeds or more, and 70 % with two. With one seed the spread
    over seeds is not measured, so verdicts use the row error only and can be wrong.
    """
    from scipy.special import ndtri, stdtrit

    n, tasks = design.seeds, len(design.rows)
    seeds = 2 * design.spread**2 / (n * tasks)
    row = 1e4 * design.accuracy * (1 - design.accuracy) if design.row_variance is None else design.row_variance
    rows = 2 * sum(row / count for count in design.rows) / tasks**2
    q = 1 - (1 - level) / 2 / design.pairs
    t = float(stdtrit(_expected_df(n, tasks, design.methods), q)) if n > 1 else 0.0
    half = math.hypot(t * math.sqrt(seeds), float(ndtri(q)) * math.sqrt(rows))
    return half + float(ndtri(power)) * math.sqrt(seeds + rows)


def _expected_df(seeds: int, tasks: int, methods: int) -> float:
    """Return the expected degrees of freedom by Welch and Satterthwaite, as a ratio of expectations.

    With moderation, they include those contributed by the other methods.
    """
    f = seeds - 1
    own = f * (f * tasks + 2) / (f + 2)
    others = expected_df(own, methods)
    return 2 * (own + others) if others else own


def seeds_and_rows_needed(design: Design, gap: float = 1.0) -> tuple[int, int]:
    """Return seeds, and test rows per task, that detect a difference of `gap` points, at least those of the design.

    Of the possible combinations, seeds are chosen for half of the variance and rows for the rest. Raises `ValueError`
    unless `gap` is above 0.
    """
    if gap <= 0:
        raise ValueError(f"the difference to detect must be above 0, not {gap:g}")
    whole = replace(design, rows=(10**12,) * len(design.rows))
    seeds = _least(max(2, design.seeds), lambda n: detectable(replace(whole, seeds=n)) <= gap / math.sqrt(2))

    def found(count: int) -> bool:
        rows = tuple(max(count, held) for held in design.rows)
        return detectable(replace(design, seeds=seeds, rows=rows)) <= gap

    return seeds, _least(min(design.rows), found)


MOST = 1000
"""Upper limit of suggested seeds, and of suggested test rows per task in thousands."""


@dataclass(frozen=True)
class Needed:
    """Seeds, or test rows per task, or both, that would show an observed difference with a probability of 80 %.

    `None`: unchanged.
    """

    seeds: int | None
    rows: int | None

    @property
    def text(self) -> str:
        """The numbers as text."""
        seeds = f"{self.seeds:,} seeds" if self.seeds else ""
        rows = f"{self.rows:,} test rows on each task" if self.rows else ""
        return " and ".join(filter(None, (seeds, rows)))


def to_show(gap: float, variances: tuple[float, float], design: Design) -> Needed | str:
    """Return what would show an observed, not significant difference of `gap` points, or why that is unknown.

    More seeds if they suffice alone; else more test rows if they do; else both. `variances` are those of the observed
    difference over seeds and over test rows, in squared points; `design` is the design of the observation.
    """
    if design.seeds < 2:
        return "one seed does not show the spread over seeds"
    if not gap:
        return "no difference was observed"
    tasks = len(design.rows)
    spread = math.sqrt(variances[0] * design.seeds * tasks / 2)
    row = variances[1] * tasks**2 / 2 / sum(1 / count for count in design.rows)
    asked = replace(design, spread=spread, row_variance=row)

    def shown(seeds: int, rows: int) -> bool:
        held = tuple(max(rows, count) for count in design.rows)
        return detectable(replace(asked, seeds=seeds, rows=held)) <= abs(gap)

    fewest, least = design.seeds, min(design.rows)
    if shown(MOST, least):
        return Needed(_least(fewest, lambda seeds: shown(seeds, least)), None)
    if shown(fewest, 1000 * MOST):
        return Needed(None, _least(least, lambda rows: shown(fewest, rows)))
    seeds, rows = seeds_and_rows_needed(asked, abs(gap))
    if seeds > MOST or rows > 1000 * MOST:
        return f"more than {MOST:,} seeds or {1000 * MOST:,} test rows would be needed"
    return Needed(seeds, rows)


def _least(start: int, enough: Callable[[int], bool]) -> int:
    """Return the smallest sufficient number from `start`, if every larger one is sufficient too."""
    if enough(start):
        return start
    high = start
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
