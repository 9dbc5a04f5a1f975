"""Runs that are at chance: not shown to be better than the best answer that is the same for all test rows."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

ONE_SIDED = 1.645
"""Standard errors below a score that the true one exceeds with 95 % certainty, by the normal distribution."""


def at_chance(runs: "pd.DataFrame") -> "pd.Series[Any]":
    """Whether each run is at chance: its score less `ONE_SIDED` standard errors is not above `chance`.

    Missing where there is no score or no chance, or the standard error is not known and would decide. Chance, worked
    out on the same test rows, counts as known.
    """
    columns = runs.reindex(columns=["score", "score_error", "chance"]).astype(float)
    score, error, chance = (columns[name] for name in columns)
    found = (score - ONE_SIDED * error.fillna(0.0) <= chance).astype("boolean")
    return found.where(score.notna() & chance.notna() & (error.notna() | found))


def counted(runs: "pd.DataFrame") -> dict[str, int]:
    """How many runs of each task are at chance; tasks without one are left out."""
    found = runs["task"][at_chance(runs).fillna(False).astype(bool)].value_counts().sort_index()
    return {str(task): int(count) for task, count in found.items()}
