"""What the statistics claim, tried on planted grids: coverage, false wins, wins found, differences foreseen.

Planted: score = truth + error of the task's rows, shared by its seeds, + error of the seed.
"""

from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.special import ndtri, stdtrit

from peftbench.analysis.cells import Scores
from peftbench.analysis.comparisons import Comparison, compare, holm
from peftbench.analysis.power import Design, detectable, needed, seed_spread
from peftbench.analysis.resampling import bootstrap, mean
from peftbench.analysis.stats import Estimate, cell, over_tasks, p_of
from synthetic_table import run

Numbers = npt.NDArray[np.float64]
RATIOS = (0.1, 0.3, 1, 2, 4, 10, 100)
"""Spread of the seeds over the error of the rows."""


def parts(runs: Numbers, row: float) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Mean, variance by seeds, its degrees of freedom and variance by rows, of runs [..., task, seed]: as `stats`."""
    tasks, seeds = runs.shape[-2:]
    variances = runs.var(-1, ddof=1) / seeds / tasks**2
    total = variances.sum(-1)
    df = total**2 / (variances**2 / (seeds - 1)).sum(-1)
    return runs.mean((-2, -1)), total, df, np.full(total.shape, row**2 / tasks)


def test_the_simulation_computes_what_the_library_does() -> None:
    runs = np.random.default_rng(3).normal(0, 2, (3, 4))
    held = over_tasks([cell({i: (float(x), 1.5) for i, x in enumerate(task)}) for task in runs])
    assert (held.mean, *held.variances) == pytest.approx([float(x) for x in parts(runs, 1.5)])


@pytest.mark.parametrize(
    ("tasks", "seeds", "uneven"),
    [(t, n, u) for t, n, u in product((1, 3, 8), (2, 3, 5, 10), (False, True)) if t > 1 or not u],
)
def test_95_percent_intervals_cover_93_to_98_percent(tasks: int, seeds: int, uneven: bool) -> None:
    """Up to 99 with two seeds: too wide, not too narrow. `uneven`: one task's seeds spread four times as far."""
    rng = np.random.default_rng([tasks, seeds])
    for ratio in RATIOS:
        spread = np.full((tasks, 1), float(ratio))
        spread[0] *= 4 if uneven else 1
        runs = rng.normal(0, 1, (6000, tasks, 1)) + rng.normal(0, 1, (6000, tasks, seeds)) * spread
        at, by_seeds, df, by_rows = parts(runs, 1)
        half = np.hypot(stdtrit(df, 0.975) * np.sqrt(by_seeds), ndtri(0.975) * np.sqrt(by_rows))
        covered = float((np.abs(at) <= half).mean())
        assert 0.93 <= covered <= (0.98 if seeds > 2 else 0.993), ratio


def test_one_number_of_degrees_of_freedom_would_not_cover() -> None:
    """Why the seeds and the rows have quantiles of their own."""
    rng = np.random.default_rng(5)
    runs = 4 * rng.normal(0, 1, (20000, 1, 2)) + rng.normal(0, 1, (20000, 1, 1))
    at, by_seeds, _, by_rows = parts(runs, 1)
    total = by_seeds + by_rows
    half = stdtrit(total**2 / by_seeds**2, 0.975) * np.sqrt(total)
    assert 0.86 < float((np.abs(at) <= half).mean()) < 0.9


@pytest.mark.parametrize(("seeds", "low", "high"), [(2, 0.4, 0.6), (3, 0.6, 0.8), (5, 0.75, 0.9), (10, 0.85, 0.95)])
def test_the_bootstrap_of_few_seeds_covers_too_little(seeds: int, low: float, high: float) -> None:
    """Why no verdict rests on it: one task, no error over rows."""
    rng = np.random.default_rng(7)
    covered = 0
    for runs in rng.normal(0, 1, (600, seeds)):
        scores: Scores = {"t": {i: (float(x), 0.0) for i, x in enumerate(runs)}}
        found = bootstrap(scores, mean, rng)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert low < covered / 600 < high


def compared(runs: Numbers, row: float) -> tuple[Numbers, Numbers, Numbers]:
    """For grids of runs [grid, method, task, seed]: differences, p and adjusted p of each pair [grid, pair]."""
    first, second = np.triu_indices(runs.shape[1], 1)
    at, by_seeds, df, by_rows = parts(runs[:, first] - runs[:, second], np.sqrt(2) * row)
    p = p_of(at, by_seeds, df, by_rows)
    return at, p, np.array([holm(each) for each in p])


def grids(count: int, of: tuple[int, int, int], spread: float, row: float, shared: float) -> Numbers:
    """Grids of equal methods; `shared`: the part of the rows' variance that all methods have in common."""
    rng = np.random.default_rng([count, *of])
    methods, tasks, seeds = of
    common = rng.normal(0, row * np.sqrt(shared), (count, 1, tasks, 1))
    own = rng.normal(0, row * np.sqrt(1 - shared), (count, methods, tasks, 1))
    return np.asarray(common + own + rng.normal(0, spread, (count, methods, tasks, seeds)))


def test_the_simulation_judges_as_the_library_does() -> None:
    runs = grids(1, (4, 3, 3), 1, 0.5, 0)
    runs[0, 0] += 9
    at, p, adjusted = compared(runs, 0.5)
    methods: dict[str, Scores] = {
        str(m): {str(t): {s: (float(x), 0.5) for s, x in enumerate(task)} for t, task in enumerate(tasks)}
        for m, tasks in enumerate(runs[0])
    }
    found: tuple[Comparison, ...] = compare(methods)
    assert [c.difference.mean for c in found] == pytest.approx(at[0])
    assert [c.p for c in found] == pytest.approx(p[0])
    assert [c.adjusted for c in found] == pytest.approx(adjusted[0])
    assert [c.verdict for c in found] == ["win"] * 3 + ["tie"] * 3


@pytest.mark.parametrize(
    ("tasks", "seeds", "spread", "row"),
    [
        (1, 2, 3, 0.5),
        (3, 2, 1, 1.4),
        (1, 3, 3, 0.1),
        (3, 5, 3, 0.1),
        (8, 5, 2, 0.5),
    ],
)
def test_ten_equal_methods_are_tied(tasks: int, seeds: int, spread: float, row: float) -> None:
    """In 1,000 grids, at its worst (rows not shared, or as good as no error of rows)."""
    _, p, adjusted = compared(grids(1000, (10, tasks, seeds), spread, row, 0), row)
    assert (adjusted[:, 0] >= 0.05).mean() >= 0.93
    assert (adjusted < 0.05).any(axis=1).mean() <= 0.07
    assert (p < 0.05).any(axis=1).mean() > 0.1  # without the correction there would be false wins in many grids


@pytest.mark.parametrize(("methods", "spread", "shared"), [(2, 2, 0), (4, 2, 0), (10, 1, 0.5)])
def test_a_win_by_five_points_is_found_with_five_seeds(methods: int, spread: float, shared: float) -> None:
    """Three tasks of 1,000 test rows with 73 % accuracy."""
    runs = grids(1000, (methods, 3, 5), spread, 1.4, shared)
    runs[:, 0] += 5
    at, _, adjusted = compared(runs, 1.4)
    assert ((adjusted[:, 0] < 0.05) & (at[:, 0] > 0)).mean() >= 0.8


@pytest.mark.parametrize(
    "design",
    [
        Design(5, (120, 120, 120)),
        Design(3, (1000,)),
        Design(2, (500,) * 3),
        Design(10, (200, 2000), 3.0, 0.8),
        Design(3, (1000,) * 8, 1.0, 0.7),
        Design(5, (1000,) * 3, pairs=45),
    ],
    ids=str,
)
def test_what_is_foreseen_as_detectable_is_found_in_80_percent(design: Design) -> None:
    rng = np.random.default_rng(17)
    tasks, gap = len(design.rows), detectable(design)
    errors = 100 * np.sqrt(design.accuracy * (1 - design.accuracy) / np.array(design.rows))
    runs = rng.normal(0, 1, (4000, 2, tasks, 1)) * errors[:, None]
    runs = runs + rng.normal(0, design.spread, (4000, 2, tasks, design.seeds))
    at, by_seeds, df, _ = parts(runs[:, 0] - runs[:, 1] + gap, 0)
    p = p_of(at, by_seeds, df, np.full(at.shape, 2 * (errors**2).sum() / tasks**2))
    assert (0.74 if design.seeds > 2 else 0.7) < ((p < 0.05 / design.pairs) & (at > 0)).mean() < 0.86


def test_what_is_needed_is_enough_and_no_more() -> None:
    design = Design(5, (120, 120, 120))
    seeds, rows = needed(design, 1.0)
    assert detectable(Design(seeds, (rows,) * 3)) <= 1.0 < detectable(Design(seeds, (rows - 1,) * 3))
    assert detectable(Design(seeds - 1, (rows,) * 3)) > 1.0
    assert needed(Design(50, (10**6,)), 5.0) == (50, 10**6)


def test_more_seeds_rows_and_tasks_see_more_and_more_pairs_less() -> None:
    plain = detectable(Design(3, (500, 500)))
    better = [Design(5, (500, 500)), Design(3, (500, 900)), Design(3, (500,) * 3), Design(3, (500, 500), 1.0)]
    assert all(detectable(design) < plain for design in better)
    assert detectable(Design(3, (500, 500), pairs=10)) > plain
    with pytest.raises(ValueError, match="at least 1"):
        Design(0, (5,))
    with pytest.raises(ValueError, match="above 0"):
        needed(Design(3, (500,)), 0)


def test_a_p_value_is_the_level_whose_interval_touches_zero() -> None:
    estimate = Estimate(3.0, ((0.8, 2.0), (0.3, 1.0), (0.5, float("inf"))), 2)
    (p,) = p_of(*(np.array([x]) for x in (estimate.mean, *estimate.variances)))
    assert estimate.interval(1 - p).low == pytest.approx(0, abs=1e-6)


def test_the_spread_over_seeds_is_pooled_over_cells_of_methods_that_train() -> None:
    rows = [run("lora", "emotions", seed, score=score) for seed, score in enumerate((70.0, 72.0))]
    rows += [run("lora", "arithmetic", seed, score=score) for seed, score in enumerate((50.0, 51.0, 55.0))]
    rows += [run("none", "emotions", seed, score=40.0) for seed in range(5)]
    rows += [run("ia3", "emotions", 0, score=60.0)]
    # Sums of squares 2 and 14 over 1 and 2 degrees of freedom.
    assert seed_spread(pd.DataFrame(rows)) == pytest.approx((16 / 3) ** 0.5)
    assert seed_spread(pd.DataFrame(rows[-1:])) is None
