"""Intervals: closed-form cases against scipy, and coverage of a planted model."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from scipy.stats import norm

from peftbench.metrics import METRICS, Answers, score_metric
from peftbench.stats.intervals import Estimate, Interval, Run, Runs, cell, difference, over_tasks

NAN = float("nan")


def bounds(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def test_without_row_error_it_is_the_t_interval_of_the_seeds() -> None:
    scores = [70.0, 71.5, 69.2, 73.1]
    interval = cell({seed: Run(score, 0.0) for seed, score in enumerate(scores)}).interval()
    expected = scipy_stats.t.interval(0.95, 3, np.mean(scores), scipy_stats.sem(scores))
    assert bounds(interval) == pytest.approx(expected)
    assert interval.df == pytest.approx(3)
    assert interval.seeds == 4


def test_the_difference_of_two_tasks_is_welchs() -> None:
    first, second = [1.0, 2.0, 4.0], [3.0, 3.5, 9.0, 2.0]
    tasks = [cell({i: Run(x, 0.0) for i, x in enumerate(first)}), cell({i: Run(-x, 0.0) for i, x in enumerate(second)})]
    interval = over_tasks(tasks).interval()
    welch = scipy_stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert interval.df == pytest.approx(scipy_stats.ttest_ind(first, second, equal_var=False).df)
    assert bounds(interval) == pytest.approx((welch.low / 2, welch.high / 2))


def test_one_seed_has_the_row_error_alone() -> None:
    interval = cell({7: Run(60.0, 2.0)}).interval()
    assert bounds(interval) == pytest.approx(scipy_stats.norm.interval(0.95, 60.0, 2.0))
    assert interval.seeds == 1


def test_the_row_error_does_not_shrink_with_seeds() -> None:
    interval = cell(dict.fromkeys(range(100), Run(60.0, 2.0))).interval()
    assert interval.sides[1] == pytest.approx(1.96 * 2, rel=1e-3)


def test_an_unknown_row_error_makes_an_unknown_interval() -> None:
    unknown = cell({0: Run(60.0, NAN), 1: Run(60.0, NAN)})
    assert unknown.interval() == Interval(60.0, None, None, math.inf, 2)
    assert over_tasks([unknown, cell({0: Run(70.0, 1.0)})]).interval().low is None
    assert cell({0: Run(60.0, NAN), 1: Run(60.0, 1.0)}).interval().sides[1] == pytest.approx(1.96, rel=1e-3)


def test_no_spread_at_all_is_an_interval_of_no_width() -> None:
    assert bounds(cell({0: Run(50.0, 0.0), 1: Run(50.0, 0.0)}).interval()) == (50.0, 50.0)


def test_a_constant_gain_is_found_although_seeds_differ_more() -> None:
    first: Runs = {0: Run(70.0, 0.1), 1: Run(60.0, 0.1), 2: Run(80.0, 0.1)}
    second: Runs = {seed: Run(run.score - 1, run.error) for seed, run in first.items()}
    interval = difference(first, second).interval()
    assert bounds(interval) == pytest.approx(scipy_stats.norm.interval(0.95, 1.0, math.hypot(0.1, 0.1)))


def test_what_cannot_be_paired_or_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not paired: seeds \[0\] and \[1\]"):
        difference({0: Run(1.0, 1.0)}, {1: Run(1.0, 1.0)})
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
        cells = [cell({seed: Run(float(score), row_sd) for seed, score in enumerate(task)}) for task in scores]
        low, high = bounds(over_tasks(cells).interval())
        covered += low <= 50 <= high
    assert 0.93 <= covered / trials <= 0.98


def test_a_difference_on_rows_that_are_shared_unseen_is_covered_at_least_as_often() -> None:
    rng = np.random.default_rng(12)
    covered, trials = 0, 3000
    for _ in range(trials):
        easy = rng.normal(0, 0.8)
        own = [q + easy + rng.normal(0, 0.6) for q in (70, 68)]
        pair = [{s: Run(float(q + rng.normal(0, 1)), 1.0) for s in range(3)} for q in own]
        low, high = bounds(difference(*pair).interval())
        covered += low <= 2 <= high
    assert covered / trials >= 0.95


def marked(right: str) -> Run:
    found = score_metric(
        "accuracy", Answers(["yes" if sign == "+" else "no" for sign in right], [["yes"]] * len(right))
    )
    return Run(*found)


def row_error(first: Sequence[Run], second: Sequence[Run]) -> float:
    """The part of the rows in the error of a difference."""
    return math.sqrt(difference(dict(enumerate(first)), dict(enumerate(second))).variances[2])


def test_rows_that_both_get_wrong_do_not_count() -> None:
    """Two rows beside them, 100 and -100, stand for what so few have not shown."""
    assert row_error([marked("++--")], [marked("++--")]) == pytest.approx(math.sqrt(20000 / 5 / 6))
    # Differences 100, -100, 0, 0: mean 0, variance 40000 / 5.
    assert row_error([marked("+--+")], [marked("-+-+")]) == pytest.approx(math.sqrt(40000 / 5 / 6))
    free = [Run(50.0, 9.0, np.array([20.0, 40.0, 90.0]))]
    assert row_error(free, free) == 0


def test_seeds_are_averaged_before_rows_are_drawn() -> None:
    assert row_error([marked("+-"), marked("-+")], [marked("-+"), marked("+-")]) == pytest.approx(math.sqrt(5000 / 3))
    assert row_error([marked("+-")], [marked("-+")]) == pytest.approx(math.sqrt(10000 / 3))


def test_rows_that_do_not_belong_together_are_not_paired() -> None:
    """Other numbers of rows, a run without scores of them, or other rows that can be scored."""
    one, apart = marked("++--"), math.hypot(marked("++--").error, marked("+-+-+-").error)
    assert row_error([one], [marked("+-+-+-")]) == pytest.approx(apart)
    assert row_error([one], [one._replace(rows=None)]) == pytest.approx(one.error * math.sqrt(2))
    alone, gone = np.array([100.0, NAN]), np.array([NAN, 0.0])
    assert row_error([Run(100.0, 3.0, alone)], [Run(0.0, 4.0, gone)]) == pytest.approx(5)
    three, zeros = np.array([1.0, 3.0, NAN]), np.array([0.0, 0.0, NAN])
    assert row_error([Run(2.0, 7.0, three)], [Run(0.0, 7.0, zeros)]) == pytest.approx(1)


def test_an_error_that_is_not_known_stays_so_whatever_the_rows() -> None:
    """Two rows of one group, say, whose resamples are all alike."""
    pair = Answers(["yes", "no"], [["yes"]] * 2, labels=["yes", "no"], positive="yes", details=[{"group": 1}] * 2)
    run = Run(*score_metric("f1", pair))
    assert run.rows is not None
    assert difference({0: run, 1: run}, {0: run, 1: run}).interval().low is None


def test_what_is_no_mean_of_rows_is_drawn_in_pairs() -> None:
    """Resamples are the same rows for all, so a difference of correlations has the error of its own bootstrap."""
    rng = np.random.default_rng(5)
    wanted = rng.uniform(0, 5, 200)
    texts = [[f"{min(5, max(0, x)):.3f}" for x in wanted + rng.normal(0, sd, 200)] for sd in (1, 1.2)]
    right = [[f"{x:.3f}"] for x in wanted]
    answers = [Answers(given, right, scale=(0, 5)) for given in texts]
    first, second = (Run(*score_metric("pearson", one)) for one in answers)
    for run in (first, second):
        assert run.rows is not None
        assert run.rows.mean() == pytest.approx(run.score)
        assert run.rows.std(ddof=1) / math.sqrt(len(run.rows)) == pytest.approx(run.error)
    assert row_error([first], [first]) == 0
    drawn = []
    for _ in range(1000):
        rows = rng.integers(200, size=200).tolist()
        near, far = (METRICS["pearson"].function(one.take(rows)) for one in answers)
        drawn.append(near - far)
    assert row_error([first], [second]) == pytest.approx(np.std(drawn), rel=0.2)


@pytest.mark.parametrize(
    ("rows", "accuracy", "alike", "gap"), [(32, 0.95, 0.95, 2), (100, 0.98, 0.99, 1), (16, 0.7, 0, 0)]
)
def test_few_rows_that_differ_are_no_proof(rows: int, accuracy: float, alike: float, gap: int) -> None:
    """One seed; methods that answer nearly all rows alike. Without the two rows beside them 64 to 68 % are covered."""
    rng, covered = np.random.default_rng(rows), 0
    at = norm.ppf([[accuracy], [accuracy - gap / 100]])
    for _ in range(1500):
        hard = np.sqrt(alike) * rng.normal(0, 1, (1, rows)) + np.sqrt(1 - alike) * rng.normal(0, 1, (2, rows))
        one, other = ({0: Run(float(r.mean()), 1.0, r)} for r in 100.0 * (hard < at))
        low, high = bounds(difference(one, other).interval())
        covered += low <= gap <= high
    assert covered / 1500 >= 0.93


@pytest.mark.parametrize("alike", [0.0, 0.7, 0.95])
def test_differences_on_paired_rows_are_covered_and_narrow(alike: float) -> None:
    """Planted: both methods find the same rows hard, to a degree; 5 points apart, two seeds and three."""
    rng = np.random.default_rng([13, int(100 * alike)])
    covered, halves, apart = 0, [], []
    for _ in range(1500):
        hard = np.sqrt(alike) * rng.normal(0, 1, (1, 1, 300)) + np.sqrt(1 - alike) * rng.normal(0, 1, (2, 1, 300))
        at = norm.ppf([[[0.7]], [[0.65]]]) * math.sqrt(1.2)
        right = 100.0 * (hard + rng.normal(0, math.sqrt(0.2), (2, 3, 300)) < at)
        one, other = ({s: Run(float(r.mean()), float(r.std() / 17.3), r) for s, r in enumerate(runs)} for runs in right)
        interval = difference(one, other).interval()
        low, high = bounds(interval)
        covered += low <= 5 <= high
        halves.append(high - low)
        bare = [{s: run._replace(rows=None) for s, run in runs.items()} for runs in (one, other)]
        apart.append(float(np.subtract(*bounds(difference(*bare).interval())[::-1])))
    assert 0.945 <= covered / 1500 <= 0.995  # What a seed does to single rows counts in both parts.
    assert np.mean(halves) / np.mean(apart) < (0.85 if alike > 0.5 else 1.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 20)), min_size=1, max_size=8))
def test_the_mean_lies_inside_and_swapping_turns_the_sign(runs: list[tuple[float, float]]) -> None:
    first = {seed: Run(*run) for seed, run in enumerate(runs)}
    second = {seed: Run(100 - run.score, run.error) for seed, run in first.items()}
    low, high = bounds(cell(first).interval())
    assert low <= cell(first).mean <= high
    forth, back = difference(first, second), difference(second, first)
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.interval().sides[1] == pytest.approx(back.interval().sides[1])


def test_a_higher_level_is_wider() -> None:
    estimate = Estimate(1.0, ((1.0, 4.0),), 5)
    assert bounds(estimate.interval(0.99))[1] > bounds(estimate.interval(0.95))[1]
