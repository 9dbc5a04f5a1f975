"""How the runs of each method were made: settings, rows, precision, workers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FACTS = (
    *("learning_rate", "epochs", "steps", "batch_size", "accumulation", "train_rows", "validation_rows", "test_rows"),
    *("truncated_share", "precision", "workers"),
)
"""What is told of the runs of a method. `steps` are those that were done; `workers` ran beside each other."""
Conditions = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""By method and fact: the values that its runs had, in order; none of a fact that is not known or does not apply."""


def conditions(runs: "pd.DataFrame") -> Conditions:
    """The conditions of the runs of each method, `label` in the table; what a table does not hold is not known."""
    runs = with_shares(runs).reindex(columns=["label", "trainable_parameters", *FACTS])
    # What trains nothing has settings all the same, which nobody asked for.
    idle = runs["trainable_parameters"] == 0
    runs.loc[idle, ["learning_rate", "epochs", "steps", "batch_size", "accumulation"]] = None
    return {
        str(label): {fact: tuple(sorted(map(_whole, own[fact].dropna().unique().tolist()))) for fact in FACTS}
        for label, own in runs.groupby("label")
    }


def _whole(value: Any) -> Any:
    """A count as a whole number, whatever a column with gaps makes of it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_shares(runs: "pd.DataFrame") -> "pd.DataFrame":
    """The runs with the share of their rows that were cut to the longest text allowed."""
    counts = ["truncated_rows", "train_rows", "validation_rows", "test_rows"]
    cut, *rows = (runs.reindex(columns=counts)[name].astype(float) for name in counts)
    return runs.assign(truncated_share=cut / sum(rows))


def fewer(runs: "pd.DataFrame") -> dict[str, int]:
    """By task: how many training rows there were, where that is fewer than were asked for."""
    held = runs.reindex(columns=["task", "size", "train_rows"]).dropna()
    held = held[held["size"].astype(str) != "all"]
    short = held[held["train_rows"].astype(float) < held["size"].astype(float)]
    return {str(task): int(own["train_rows"].min()) for task, own in short.groupby("task")}
