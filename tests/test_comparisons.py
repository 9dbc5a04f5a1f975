"""Comparisons of many methods against scipy on random tables, and golden values worked out with other libraries."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from peftbench.stats.intervals import Run, Scores
from peftbench.stats.paired_tests import compare_pairs, holm, verdicts, wilcoxon
from peftbench.stats.ranks import friedman, nemenyi, rank_methods
from peftbench.stats.resampling import bootstrap, improvement, interquartile_mean, mean

RANDOM = settings(deadline=None, max_examples=40)


@RANDOM
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_wilcoxon_is_scipys_over_all_signs(differences: list[int]) -> None:
    kept = [d for d in differences if d]
    if len(kept) < 2:
        assert wilcoxon(differences) == 1
        return
    exact = scipy_stats.PermutationMethod(n_resamples=2 ** len(kept))
    expected = scipy_stats.wilcoxon(kept, zero_method="wilcox", method=exact)
    assert wilcoxon(differences) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("count", [6, 20, 45])
def test_wilcoxon_without_ties_is_scipys_exact_one(count: int) -> None:
    for differences in np.random.default_rng(count).normal(0.3, 1, (20, count)):
        assert wilcoxon(list(differences)) == pytest.approx(scipy_stats.wilcoxon(differences, method="exact").pvalue)


@pytest.mark.parametrize(("tasks", "methods", "values"), [(3, 4, 1000), (8, 3, 4), (27, 10, 50)])
def test_friedman_is_its_closed_form_with_ties_too(tasks: int, methods: int, values: int) -> None:
    """The spread of mean ranks over that of all ranks, which is smaller where some are tied (Conover 1999)."""
    rng = np.random.default_rng([tasks, methods])
    for _ in range(30):
        ranks = scipy_stats.rankdata(-rng.integers(0, values, (tasks, methods)), axis=1)
        middle = (methods + 1) / 2
        statistic = tasks * ((ranks.mean(0) - middle) ** 2).sum()
        statistic /= ((ranks - middle) ** 2).sum() / (tasks * (methods - 1))
        assert friedman(ranks) == pytest.approx((statistic, scipy_stats.chi2.sf(statistic, methods - 1)))
    assert friedman(np.full((tasks, methods), (methods + 1) / 2)) == (0.0, 1.0)


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_nemenyi_has_the_constants_of_demsar(methods: int, q: float) -> None:
    """Table 5a of Demšar 2006."""
    assert nemenyi(methods, 14) == pytest.approx(q * math.sqrt(methods * (methods + 1) / (6 * 14)), rel=5e-4)


@RANDOM
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_steps_do(p: list[float]) -> None:
    """By the definition: the ordered p-values against alpha over what is left, until one fails."""
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for step, which in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[which] > alpha / (len(p) - step):
                break
            rejected.add(which)
        near = [abs(a - alpha) < 1e-9 for a in adjusted]
        assert all(near[i] or (adjusted[i] <= alpha) == (i in rejected) for i in range(len(p)))


def test_holm_golden() -> None:
    """As statsmodels 0.14 `multipletests(method="holm")`."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def scores(*tasks: tuple[float, ...], error: float = 0.0) -> Scores:
    return {f"t{i}": {seed: Run(score, error) for seed, score in enumerate(runs)} for i, runs in enumerate(tasks)}


def test_every_pair_has_a_verdict_and_both_sides_of_it() -> None:
    found = compare_pairs({"a": scores((80, 81, 82), error=0.1), "b": scores((70, 71, 72.2), error=0.1),
                     "c": scores((70, 71.1, 72), error=0.1)})  # fmt: skip
    assert [(c.first, c.second, c.verdict) for c in found] == [
        ("a", "b", "win"), ("a", "c", "win"), ("b", "c", "tie")
    ]  # fmt: skip
    assert verdicts(found, "b") == {"c": "tie", "a": "loss"}
    assert all(c.p is not None and c.adjusted is not None and c.adjusted >= c.p for c in found)


def test_the_number_of_pairs_counts() -> None:
    """A difference that one pair would show is a tie among many."""
    rng = np.random.default_rng(4)
    methods = {str(i): scores(tuple(rng.normal(70, 0.01, 5)), error=1.0) for i in range(10)}
    methods["0"] = scores(tuple(rng.normal(73.2, 0.01, 5)), error=1.0)
    assert compare_pairs({m: methods[m] for m in "01"})[0].verdict == "win"
    assert {c.verdict for c in compare_pairs(methods)} == {"tie"}


def test_unequal_cells_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="a and b do not have the same tasks: t1"):
        compare_pairs({"a": scores((1.0, 2.0)), "b": scores((1.0, 2.0), (3.0, 4.0))})
    with pytest.raises(ValueError, match="b lacks t1"):
        rank_methods({"a": {"t0": 1, "t1": 2}, "b": {"t0": 1}, "c": {"t0": 1, "t1": 2}})
    with pytest.raises(ValueError, match="not on the same tasks: t1"):
        improvement(scores((1.0,)), scores((1.0,), (2.0,)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="three methods and two tasks, not 2 and 1"):
        rank_methods({"a": {"t0": 1}, "b": {"t0": 1}})


def test_groups_hold_what_does_not_differ_and_nothing_else() -> None:
    rng = np.random.default_rng(9)
    for _ in range(20):
        table = {f"m{j}": {str(i): float(x + j) for i, x in enumerate(rng.normal(0, 2, 12))} for j in range(6)}
        found = rank_methods(table)
        joined = {pair for group in found.groups for pair in combinations(group, 2)}
        near = {(a, b) for a, b in combinations(found.mean, 2) if found.mean[b] - found.mean[a] < found.critical}
        assert joined == near
        assert sum(found.mean.values()) == pytest.approx(6 * 7 / 2)


def test_the_bootstrap_is_the_generators_and_scipys() -> None:
    held = scores((60.0, 62.0, 65.0, 61.0, 70.0), (80.0, 82.0, 81.0, 88.0, 83.0))
    one, two = (bootstrap(held, interquartile_mean, np.random.default_rng(3)) for _ in range(2))
    assert one == two != bootstrap(held, interquartile_mean, np.random.default_rng(4))
    runs = [run.score for task in held.values() for run in task.values()]
    assert one.value == pytest.approx(scipy_stats.trim_mean(runs, 0.25))
    flat = scores((60.0, 62.0, 65.0, 61.0, 70.0))
    ours = bootstrap(flat, mean, np.random.default_rng(0))
    theirs = scipy_stats.bootstrap(
        ([60.0, 62.0, 65.0, 61.0, 70.0],), np.mean, method="percentile", n_resamples=20000, rng=1
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.3)


def test_rows_widen_the_bootstrap_and_unknown_ones_leave_it_unknown() -> None:
    held = scores((60.0, 60.0), error=2.0)
    found = bootstrap(held, mean, np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx((60 - 3.92, 60 + 3.92), abs=0.3)
    assert bootstrap(scores((60.0,), error=math.nan), mean, np.random.default_rng(0)).low is None


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_no_interval_where_the_row_error_of_one_task_is_unknown(statistic: Callable[[Any], Any]) -> None:
    """Also where that task is one of many, and its runs are the highest."""
    known = scores(*[(50.0, 60.0)] * 8)
    some = {**known, "t8": {seed: Run(90.0 + seed, math.nan) for seed in range(2)}}
    every = {**known, "t8": {seed: Run(90.0 + seed, 1.0) for seed in range(2)}}
    found = bootstrap(some, statistic, np.random.default_rng(0))
    assert (found.low, found.high) == (None, None)
    assert found.value == bootstrap(every, statistic, np.random.default_rng(0)).value
    for one, other in ((some, every), (every, some)):
        better = improvement(one, other, np.random.default_rng(0))
        assert (better.value, better.low, better.high) == (0.5, None, None)
    assert improvement(every, every, np.random.default_rng(0)).low is not None


def test_the_probability_of_improvement_is_mann_whitneys() -> None:
    a, b = (3.0, 5.0, 5.0, 9.0), (1.0, 5.0, 6.0)
    found = improvement(scores(a), scores(b), np.random.default_rng(0))
    assert found.value == pytest.approx(scipy_stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)))
    assert improvement(scores(b), scores(a), np.random.default_rng(0)).value == pytest.approx(1 - found.value)
