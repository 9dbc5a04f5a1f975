"""Variances over few seeds, moderated by those of the other methods of a board (Smyth 2004, 10.2202/1544-6115.1027).

A method's variance over seeds is an estimate with one to a few degrees of freedom. The other methods give a prior: a
variance s0² with d0 degrees of freedom. The moderated variance is the mean of both, weighted by their degrees of
freedom. d0 follows from the excess of the spread of the log variances over that of equal variances: if methods differ,
d0 is low, and each method mainly uses its own runs.

The implementation is more cautious than limma. Ten methods determine d0 poorly, so the excess is increased by half a
standard error; otherwise one unstable method among nine would often be judged stable. d0 is at most the sum of all
methods' degrees of freedom (as in limma). Both parts stay separate for Welch and Satterthwaite, so a method with a much
larger spread than the others gets hardly more degrees of freedom than its own.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from peftbench.stats.intervals import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

CAUTION = 0.5
"""Number of standard errors added to the estimated excess of the log variances."""
FLOOR = 0.01
"""Lower limit of seed variances in the estimation of d0, as a share of the mean variance over rows."""
FEWEST = 5
"""Minimum number of trained methods for moderation; with fewer, single tasks had too many false wins."""


def moderated(methods: Mapping[str, Estimate], fixed: Collection[str] = ()) -> dict[str, Estimate]:
    """Return the estimates of all methods of one board, on a task or over the same tasks, with moderated seed parts.

    Methods in `fixed`, which train nothing and have no spread, are neither moderated nor used for the prior; nor are
    those with one seed or an unknown error. If fewer than `FEWEST` methods remain, all are unchanged.
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
    """Return the prior variance s0² and its degrees of freedom d0 from variances [..., method] > 0, without zeros.

    Estimated from the mean and the variance of log(variance), as in limma's `fitFDist`; d0 with `CAUTION`, at most the
    sum of `df`.
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
    """Return the expected d0 for `methods` with equal spread and `df` each, for planning; 0 for too few methods."""
    from scipy.special import polygamma

    if methods < FEWEST:
        return 0.0
    error = np.sqrt(2 * polygamma(1, df / 2) ** 2 / (methods - 1) + polygamma(3, df / 2) / methods)
    return min(2 * float(inverse_trigamma(CAUTION * error)), methods * df)


def inverse_trigamma(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the inverse of trigamma for values > 0, by Newton's method on its convex reciprocal (Smyth 2004)."""
    from scipy.special import polygamma

    at = 0.5 + 1 / np.asarray(values, dtype=float)
    for _ in range(20):
        here = polygamma(1, at)
        at = at + here * (1 - here / values) / polygamma(2, at)
    return at


def _own_df(estimate: Estimate) -> float:
    """Return the degrees of freedom of the seeds; the sum over the parts if no seed differs from another."""
    finite = [(v, df) for v, df in estimate.parts if np.isfinite(df)]
    return estimate.variances[1] if any(v for v, _ in finite) else sum(df for _, df in finite)


def _with(estimate: Estimate, usual: float, worth: float, df: float) -> Estimate:
    own, _, rows = estimate.variances
    share = worth / (worth + df)
    return replace(estimate, parts=((share * usual, worth), ((1 - share) * own, df), (rows, float("inf"))))
