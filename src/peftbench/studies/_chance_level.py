"""Runs that are at chance: not shown to be better than the best constant answer to all test rows."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

ONE_SIDED = 1.645
"""Half-width of a one-sided 95 % interval in standard errors, by the normal distribution."""


def at_chance(runs: "pd.DataFrame") -> "pd.Series[Any]":
    """Return for each run whether it is at chance: its score minus `ONE_SIDED` standard errors is not above `chance`.

    The value is missing if the score or the chance level is missing, or if the standard error is unknown and the score
    is above chance. The chance level is computed on the same test rows and is treated as exact.
    """
    columns = runs.reindex(columns=["score", "score_error", "chance"]).astype(float)
    score, error, chance = (columns[name] for name in columns)
    found = (score - ONE_SIDED * error.fillna(0.0) <= chance).astype("boolean")
    return found.where(score.notna() & chance.notna() & (error.notna() | found))


def counted(runs: "pd.DataFrame") -> dict[str, int]:
    """Return the number of runs at chance by task; tasks without such runs are left out."""
    found = runs["task"][at_chance(runs).fillna(False).astype(bool)].value_counts().sort_index()
    return {str(task): int(count) for task, count in found.items()}
