"""A parametric bootstrap of estimates (Efron and Tibshirani 1993, chapter 6.5).

Deviations over seeds are drawn from Student's t, errors over test rows from a normal distribution. Resampling the seeds
is not suitable: three seeds have only ten different resamples, and the spread of their means is too small.
"""

import math

import numpy as np
from numpy.typing import NDArray

from peftbench.stats.intervals import Estimate

DRAWS = 4000
"""Number of draws; the coverage of a 95 % interval is then accurate to about one percent."""

Floats = NDArray[np.float64]


def noise(estimate: Estimate, generator: np.random.Generator) -> Floats:
    """Return `DRAWS` deviations from the mean; zeros if the uncertainty is unknown."""
    drawn = np.zeros(DRAWS)
    for variance, df in estimate.parts:
        deviates = generator.standard_normal(DRAWS) if math.isinf(df) else generator.standard_t(df, DRAWS)
        drawn += math.sqrt(variance) * deviates
    return drawn


def ends(drawn: Floats) -> tuple[float, float]:
    """Return the ends of the central 95 %."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
