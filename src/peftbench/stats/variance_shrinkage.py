"""Variances of few seeds, moderated by those of the other methods of a board (Smyth 2004, 10.2202/1544-6115.1027).

A method's variance by seeds is an estimate with one to a few degrees of freedom. Those of the other methods say what is
usual: a variance s0² worth d0 degrees of freedom. The moderated one is the mean of the two, weighted by their degrees
of freedom. d0 comes from how much the logarithms of the variances differ beyond what chance makes of equal ones: where
methods are unlike, it is low, and each keeps to its own runs.

Three things differ from limma, all towards caution. Ten methods tell little about d0, so their excess is taken half a
standard error larger than it is found; otherwise one unstable method among nine would often pass for stable. d0 is
no more than all methods' degrees of freedom together (as there). And the two parts stay two parts for Welch and
Satterthwaite, so a method that spreads far more than the others gets hardly more degrees of freedom than its own,
not d0 on top.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from peftbench.stats.intervals import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

CAUTION = 0.5
"""Standard errors by which the excess of the log variances is taken larger than found."""
FLOOR = 0.01
"""Shares of the mean variance by rows: seed variances below, 0 among them, count as this one in the search for d0."""
FEWEST = 5
"""Trained methods below which each is judged by its own seeds: of fewer, single tasks had too many false wins."""


def moderated(methods: Mapping[str, Estimate], fixed: Collection[str] = ()) -> dict[str, Estimate]:
    """The estimates of all methods of one board, of a task or over the same tasks, with moderated parts of the seeds.

    Those in `fixed`, which train nothing and have no spread, stay as they are and tell nothing about the others; so do
    those of one seed or with an unknown error. All stay as they are if fewer than `FEWEST` are left.
    """
    found = {m: e.variances for m, e in methods.items() if m not in fixed and any(np.isfinite(df) for _, df in e.parts)}
    own = np.array([each[0] for each in found.values()])
    df = np.array([_own_df(methods[m]) for m in found])
    least = FLOOR * float(np.mean([each[2] for each in found.values()])) if found else 0.0
    if np.count_nonzero(np.maximum(own, least)) < FEWEST:
        return dict(methods)
    usual, worth = (float(x) for x in prior(np.maximum(own, least), df))
    return dict(methods) | {m: _with(methods[m], usual, worth, float(f)) for m, f in zip(found, df, strict=True)}


def prior(variances: "NDArray[np.float64]", df: "NDArray[np.float64]") -> "tuple[NDArray[np.float64], ...]":
    """The usual variance s0² and the degrees of freedom d0 it is worth, of variances [..., method] > 0; zeros left out.

    By the mean and the variance of log(variance), as limma's `fitFDist`; d0 with `CAUTION`, at most the sum of `df`.
    """
    from scipy.special import digamma, polygamma

    kept = variances > 0
    count = kept.sum(-1)
    logs = np.log(np.where(kept, variances, 1)) - digamma(df / 2) + np.log(df / 2)
    by_chance = polygamma(1, df / 2).mean(-1, where=kept)
    error = np.sqrt(2 * by_chance**2 / (count - 1) + polygamma(3, df / 2).mean(-1, where=kept) / count)
    excess = np.maximum(logs.var(-1, ddof=1, where=kept) - by_chance, 0) + CAUTION * error
    d0 = np.minimum(2 * inverse_trigamma(excess), df.sum(-1, where=kept))
    return np.exp(logs.mean(-1, where=kept) + digamma(d0 / 2) - np.log(d0 / 2)), d0


def expected_df(df: float, methods: int) -> float:
    """The degrees of freedom d0 of `methods` that spread alike, with `df` each: what a plan can count on; 0 of few."""
    from scipy.special import polygamma

    if methods < FEWEST:
        return 0.0
    error = np.sqrt(2 * polygamma(1, df / 2) ** 2 / (methods - 1) + polygamma(3, df / 2) / methods)
    return min(2 * float(inverse_trigamma(CAUTION * error)), methods * df)


def inverse_trigamma(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Where trigamma has these values > 0, by Newton's method on its reciprocal, which is convex (Smyth 2004)."""
    from scipy.special import polygamma

    at = 0.5 + 1 / np.asarray(values, dtype=float)
    for _ in range(20):
        here = polygamma(1, at)
        at = at + here * (1 - here / values) / polygamma(2, at)
    return at


def _own_df(estimate: Estimate) -> float:
    """Degrees of freedom of the seeds; their sum where no seed differs from another, of which no part is largest."""
    finite = [(v, df) for v, df in estimate.parts if np.isfinite(df)]
    return estimate.variances[1] if any(v for v, _ in finite) else sum(df for _, df in finite)


def _with(estimate: Estimate, usual: float, worth: float, df: float) -> Estimate:
    own, _, rows = estimate.variances
    share = worth / (worth + df)
    return replace(estimate, parts=((share * usual, worth), ((1 - share) * own, df), (rows, float("inf"))))
