"""Comparison of methods by their ranks on the tasks: Friedman's test, Nemenyi's critical difference (Demšar 2006).

Ranks ignore the size of differences, and each task is one observation: results generalise to similar tasks, and few
tasks have little power.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FEW = 6
"""Number of tasks below which the power is low: Wilcoxon's test cannot reach 5 % with five tasks."""


@dataclass(frozen=True)
class Ranks:
    """Mean rank of each method over the tasks (1 is best; ties share), best first.

    `statistic` and `p` are Friedman's, corrected for ties; `critical` is Nemenyi's critical difference of two mean
    ranks. `groups` are consecutive methods of which no two differ significantly.
    """

    mean: Mapping[str, float]
    tasks: int
    statistic: float
    p: float
    critical: float
    groups: tuple[tuple[str, ...], ...]


def rank_methods(scores: Mapping[str, Mapping[str, float]], alpha: float = 0.05) -> Ranks:
    """Return the ranks of methods from their mean scores by task.

    Raises `ValueError` for fewer than three methods or two tasks, and for methods that lack tasks.
    """
    from scipy.stats import rankdata

    tasks = sorted(set().union(*scores.values()))
    lacking = {method: sorted(set(tasks) - held.keys()) for method, held in scores.items()}
    if any(lacking.values()):
        named = "; ".join(f"{method} lacks {', '.join(names)}" for method, names in lacking.items() if names)
        raise ValueError(f"ranks need the same tasks: {named}")
    if len(scores) < 3 or len(tasks) < 2:
        raise ValueError(f"ranks need three methods and two tasks, not {len(scores)} and {len(tasks)}")
    table = np.array([[held[task] for held in scores.values()] for task in tasks])
    ranks = rankdata(-table, axis=1)
    statistic, p = friedman(ranks)
    mean = dict(sorted(zip(scores, ranks.mean(0).tolist(), strict=True), key=lambda each: each[1]))
    critical = nemenyi(len(scores), len(tasks), alpha)
    return Ranks(mean, len(tasks), statistic, p, critical, _groups(mean, critical))


def friedman(ranks: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[float, float]:
    """Return Friedman's statistic (1937) and its p-value by the chi-squared distribution, from ranks [task, method]."""
    from scipy.stats import friedmanchisquare

    if (ranks == ranks[:, :1]).all():
        return 0.0, 1.0
    found = friedmanchisquare(*ranks.T)
    return float(found.statistic), float(found.pvalue)


def nemenyi(methods: int, tasks: int, alpha: float = 0.05) -> float:
    """Return the critical difference of two mean ranks for these numbers of methods and tasks (Nemenyi 1963)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * tasks))


def _groups(mean: Mapping[str, float], critical: float) -> tuple[tuple[str, ...], ...]:
    names = list(mean)
    found: list[tuple[int, int]] = []
    for start in range(len(names)):
        end = max(i for i, name in enumerate(names) if mean[name] - mean[names[start]] < critical)
        if end > start and (not found or end > found[-1][1]):
            found.append((start, end))
    return tuple(tuple(names[start : end + 1]) for start, end in found)
