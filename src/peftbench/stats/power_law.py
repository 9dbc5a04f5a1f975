"""A power law of errors in the number of training rows, and its prediction for the largest number, to be verified.

error = a · rows^-b with error = 100 - score describes the decrease of errors with enough data (Hestness et al. 2017,
arXiv 1712.00409). It is fitted to all sizes except the largest, as a line through logarithms with equal weights. It has
no irreducible error and no plateau for too few data (Rosenfeld et al. 2020, arXiv 1909.12673), because grids have about
four sizes, and three parameters fit any three points. Near such a plateau the prediction fails, which the verification
shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from peftbench.stats.intervals import Estimate
from peftbench.stats.parametric_bootstrap import ends, noise

FEWEST_SIZES = 3
"""Two sizes for the line, and one for verification."""
WORST = 200.0
"""The error of a score of -100, the minimum of all metrics."""


@dataclass(frozen=True)
class PowerLaw:
    """A power law, and its prediction for a size that was not used for the fit.

    `low` to `high` is the 95 % prediction interval for measurements with equally many seeds and test rows. These and
    the ends of `b` are `None` if the error over test rows is unknown.
    """

    a: float
    b: float
    rows: int
    predicted: float
    measured: float
    low: float | None = None
    high: float | None = None
    b_low: float | None = None
    b_high: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the measurement is in the interval; `None` without an interval."""
        return None if self.low is None or self.high is None else self.low <= self.measured <= self.high


def power_law(rows: Sequence[int], scores: Sequence[Estimate], generator: np.random.Generator) -> PowerLaw | str:
    """Return the power law of scores by number of rows, fewest first, or why there is none."""
    if len(rows) < FEWEST_SIZES:
        return f"fewer than {FEWEST_SIZES} sizes"
    errors = np.array([100 - score.mean for score in scores])
    if errors.min() <= 0:
        return f"no error is left at {rows[int(errors.argmin())]:,} rows"
    x, y = np.log(rows), np.log(errors)
    centre = x[:-1].mean()
    fitted = x[:-1] - centre
    # The exponent and the logarithm at the largest size are weighted sums of the logarithms of the errors.
    slope = fitted / (fitted @ fitted)
    reach = 1 / len(fitted) + (x[-1] - centre) * slope
    b = -float(slope @ y[:-1])
    law = PowerLaw(
        a=float(np.exp(y[:-1].mean() + b * centre)),
        b=b,
        rows=rows[-1],
        predicted=100 - float(np.exp(reach @ y[:-1])),
        measured=scores[-1].mean,
    )
    if not all(score.parts for score in scores):
        return law
    drawn = np.array([noise(score, generator) for score in scores])
    # To first order, the logarithm deviates by the deviation of the score over the error; errors stay positive.
    logs = y[:-1, None] - drawn[:-1] / errors[:-1, None]
    would_be = 100 - np.exp(np.minimum(reach @ logs, np.log(WORST))) + drawn[-1]
    (low, high), (b_low, b_high) = ends(would_be), ends(-slope @ logs)
    return replace(law, low=low, high=high, b_low=b_low, b_high=b_high)
