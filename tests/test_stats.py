"""Intervals: closed-form cases against scipy, and coverage of a planted model."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from peftbench.analysis.stats import Estimate, Interval, Runs, cell, difference, over_tasks

NAN = float("nan")


def bounds(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def test_without_row_error_it_is_the_t_interval_of_the_seeds() -> None:
    scores = [70.0, 71.5, 69.2, 73.1]
    interval = cell({seed: (score, 0.0) for seed, score in enumerate(scores)}).interval()
    expected = scipy_stats.t.interval(0.95, 3, np.mean(scores), scipy_stats.sem(scores))
    assert bounds(interval) == pytest.approx(expected)
    assert interval.df == pytest.approx(3)
    assert interval.seeds == 4


def test_the_difference_of_two_tasks_is_welchs() -> None:
    first, second = [1.0, 2.0, 4.0], [3.0, 3.5, 9.0, 2.0]
    tasks = [cell({i: (x, 0.0) for i, x in enumerate(first)}), cell({i: (-x, 0.0) for i, x in enumerate(second)})]
    interval = over_tasks(tasks).interval()
    welch = scipy_stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert interval.df == pytest.approx(scipy_stats.ttest_ind(first, second, equal_var=False).df)
    assert bounds(interval) == pytest.approx((welch.low / 2, welch.high / 2))


def test_one_seed_has_the_row_error_alone() -> None:
    interval = cell({7: (60.0, 2.0)}).interval()
    assert bounds(interval) == pytest.approx(scipy_stats.norm.interval(0.95, 60.0, 2.0))
    assert interval.seeds == 1


def test_the_row_error_does_not_shrink_with_seeds() -> None:
    interval = cell(dict.fromkeys(range(100), (60.0, 2.0))).interval()
    assert interval.half == pytest.approx(1.96 * 2, rel=1e-3)


def test_an_unknown_row_error_makes_an_unknown_interval() -> None:
    unknown = cell({0: (60.0, NAN), 1: (60.0, NAN)})
    assert unknown.interval() == Interval(60.0, None, None, math.inf, 2)
    assert over_tasks([unknown, cell({0: (70.0, 1.0)})]).interval().low is None
    assert cell({0: (60.0, NAN), 1: (60.0, 1.0)}).interval().half == pytest.approx(1.96, rel=1e-3)


def test_no_spread_at_all_is_an_interval_of_no_width() -> None:
    assert bounds(cell({0: (50.0, 0.0), 1: (50.0, 0.0)}).interval()) == (50.0, 50.0)


def test_a_constant_gain_is_found_although_seeds_differ_more() -> None:
    first: Runs = {0: (70.0, 0.1), 1: (60.0, 0.1), 2: (80.0, 0.1)}
    second: Runs = {seed: (score - 1, error) for seed, (score, error) in first.items()}
    interval = difference(first, second).interval()
    assert bounds(interval) == pytest.approx(scipy_stats.norm.interval(0.95, 1.0, math.hypot(0.1, 0.1)))


def test_what_cannot_be_paired_or_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not paired: seeds \[0\] and \[1\]"):
        difference({0: (1.0, 1.0)}, {1: (1.0, 1.0)})
    with pytest.raises(ValueError, match="at least one run"):
        cell({})


@pytest.mark.parametrize(
    ("tasks", "seeds", "seed_sd", "row_sd"), [(1, 5, 1.0, 0.5), (3, 3, 1.0, 1.0), (6, 2, 0.7, 1.2)]
)
def test_95_percent_intervals_cover_the_truth(tasks: int, seeds: int, seed_sd: float, row_sd: float) -> None:
    """Planted: score = truth + error of the task's rows, shared by its seeds, + error of the seed."""
    rng = np.random.default_rng(11)
    covered, trials = 0, 4000
    for _ in range(trials):
        scores = 50 + rng.normal(0, row_sd, (tasks, 1)) + rng.normal(0, seed_sd, (tasks, seeds))
        cells = [cell({seed: (float(score), row_sd) for seed, score in enumerate(task)}) for task in scores]
        low, high = bounds(over_tasks(cells).interval())
        covered += low <= 50 <= high
    assert 0.93 <= covered / trials <= 0.98


def test_a_difference_on_shared_rows_is_covered_at_least_as_often() -> None:
    rng = np.random.default_rng(12)
    covered, trials = 0, 3000
    for _ in range(trials):
        easy = rng.normal(0, 0.8)
        pair = [{s: (float(q + easy + rng.normal(0, 0.6) + rng.normal(0, 1)), 1.0) for s in range(3)} for q in (70, 68)]
        low, high = bounds(difference(*pair).interval())
        covered += low <= 2 <= high
    assert covered / trials >= 0.95


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 20)), min_size=1, max_size=8))
def test_the_mean_lies_inside_and_swapping_turns_the_sign(runs: list[tuple[float, float]]) -> None:
    first = dict(enumerate(runs))
    second = {seed: (100 - score, error) for seed, (score, error) in first.items()}
    low, high = bounds(cell(first).interval())
    assert low <= cell(first).mean <= high
    forth, back = difference(first, second), difference(second, first)
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.interval().half == pytest.approx(back.interval().half)


def test_a_higher_level_is_wider() -> None:
    estimate = Estimate(1.0, ((1.0, 4.0),), 5)
    assert bounds(estimate.interval(0.99))[1] > bounds(estimate.interval(0.95))[1]
