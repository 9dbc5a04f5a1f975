"""The smallest difference that a grid will find, before it is run, and what would be needed to see a smaller one.

What is foreseen is the interval of the difference of two methods (`peftbench.stats.paired_tests`) as if each had
rows of its own: how much they share is not known before. The degrees of freedom of the seeds' part are those that are
to be expected, of two methods alone or of a board of methods that moderate each other's variances and spread alike.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from peftbench.stats.variance_shrinkage import expected_df

SPREAD = 2.0
"""Points of score by which seeds are assumed to spread (standard deviation) where nothing is known."""
WORST = 0.5
"""The accuracy at which the error over rows is largest."""


@dataclass(frozen=True)
class Design:
    """What a comparison of two methods will rest on: seeds, and the test rows of each task.

    `accuracy` (0 to 1) is what is expected; `spread` the standard deviation over seeds in points; `pairs` by how many
    comparisons the 5 % are to be shared (Holm's first step), 1 for a pair chosen before; `methods` the board has.
    `row_variance` in squared points is that of the score of one test row of one method; without it, that of `accuracy`.
    """

    seeds: int
    rows: tuple[int, ...]
    spread: float = SPREAD
    accuracy: float = WORST
    pairs: int = 1
    methods: int = 2
    row_variance: float | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for what no grid can have."""
        if self.seeds < 1 or not self.rows or min(self.rows) < 1 or self.pairs < 1:
            raise ValueError(f"a design needs seeds, test rows and pairs of at least 1: {self}")
        if self.spread < 0 or not 0 <= self.accuracy <= 1:
            raise ValueError(f"a spread is not below 0, an accuracy is from 0 to 1: {self}")


def detectable(design: Design, power: float = 0.8, level: float = 0.95) -> float:
    """Points: the difference of two methods that is called a win with probability `power`.

    Simulated, 80 % are 74 to 86 % with three seeds or more, and 70 % with two, whose degrees of freedom vary most.
    With one seed the spread of seeds is not measured, so the difference is found by rows alone, wrongly at times.
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
    """Welch and Satterthwaite's degrees of freedom as estimates make them: expectation over expectation.

    Moderated, those of the two methods and of what the others say of each.
    """
    f = seeds - 1
    own = f * (f * tasks + 2) / (f + 2)
    others = expected_df(own, methods)
    return 2 * (own + others) if others else own


def seeds_and_rows_needed(design: Design, gap: float = 1.0) -> tuple[int, int]:
    """Seeds, and test rows on each task, that find a difference of `gap` points; no fewer than the design has.

    Of many ways: seeds enough for half of the variance, then rows for the rest. Raises `ValueError` for no gap.
    """
    if gap <= 0:
        raise ValueError(f"a difference to be found is above 0, not {gap:g}")
    whole = replace(design, rows=(10**12,) * len(design.rows))
    seeds = _least(max(2, design.seeds), lambda n: detectable(replace(whole, seeds=n)) <= gap / math.sqrt(2))

    def found(count: int) -> bool:
        rows = tuple(max(count, held) for held in design.rows)
        return detectable(replace(design, seeds=seeds, rows=rows)) <= gap

    return seeds, _least(min(design.rows), found)


MOST = 1000
"""Seeds, and thousands of test rows on a task, beyond which nobody will go."""


@dataclass(frozen=True)
class Needed:
    """Seeds, or test rows on each task, or both, that would show an observed difference 80 % of the time.

    `None`: as many as there are.
    """

    seeds: int | None
    rows: int | None

    @property
    def text(self) -> str:
        """In words."""
        seeds = f"{self.seeds:,} seeds" if self.seeds else ""
        rows = f"{self.rows:,} test rows on each task" if self.rows else ""
        return " and ".join(filter(None, (seeds, rows)))


def to_show(gap: float, variances: tuple[float, float], design: Design) -> Needed | str:
    """What would show a difference of `gap` points that was observed and not shown to be one, or why that is not known.

    More seeds, if they alone are enough; else more test rows, if those are; else both. `variances` are those of the
    observed difference, by its seeds and by its test rows, in squared points; `design` is what it was observed with.
    """
    if design.seeds < 2:
        return "one seed does not show how far seeds spread"
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
    """The least number from `start` that is enough, if every greater one is too."""
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
