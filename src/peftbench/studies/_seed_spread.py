"""Spread of scores over seeds, pooled over all runs."""

from typing import TYPE_CHECKING

from peftbench.studies._missing_cells import good_of
from peftbench.studies._run_labels import CELL, distinct, measured_runs
from peftbench.studies.stability import pooled_spread

if TYPE_CHECKING:
    import pandas as pd


def seed_spread(table: "pd.DataFrame") -> float | None:
    """Return the standard deviation over seeds in points, pooled over cells; `None` if no cell has two scores.

    Only finished runs count. `table` has one row per run (`peftbench.table`). Methods that train nothing have no spread
    and are left out.
    """
    good = good_of(distinct(measured_runs(table)))
    good = good[good["trainable_parameters"] > 0]
    found = pooled_spread(list(scores) for _, scores in good.groupby([*CELL, "training"])["score"])
    return None if found is None else found.sd
