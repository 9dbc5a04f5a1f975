"""Names that tell apart what must not be mixed: versions of a model or a task, other data, other ways of testing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TELLING = {
    "model": ["model_version", "evaluation"],
    "task": ["task_arguments", "task_version", "fingerprint"],
    "method": ["method_version"],
}
"""Columns that are added to a name where they differ among the runs of that name."""


def measured(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of runs that count: neither what others published, nor the trials of a search for settings."""
    return table[(table["status"] != "published") & ("trial" not in table or table["trial"].isna())]


def distinct(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with `model`, `task` and `method` names that stand for one thing each; twice is as good as once.

    A run that failed before its data was read has no fingerprint, and counts as one of the first.
    """
    table = table.copy()
    for name, columns in TELLING.items():
        group = table[name]
        for column in columns:
            values = table[column].fillna(table.groupby(group)[column].transform("first")).fillna("").astype(str)
            several = values.groupby(group).transform("nunique") > 1
            table[name] = table[name].where(~several, table[name] + " [" + values + "]")
    return table


def labels(table: "pd.DataFrame") -> "pd.Series[str]":
    """The name of each run's method, with its arguments where the table has more than one variant of that method."""
    variants = table.groupby("method")["method_arguments"].transform("nunique")
    full = table["method"] + ("(" + table["method_arguments"] + ")").where(table["method_arguments"] != "", "")
    return full.where(variants > 1, table["method"])
