"""Distinct names for runs that must not be compared: other versions of a model or task, other data or evaluation."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from peftbench.core.search_space import INCOMPARABLE
from peftbench.core.spec import Training
from peftbench.results.runs_table import arguments, arguments_text

if TYPE_CHECKING:
    import pandas as pd

CELL = ["machine_class", "model", "method", "method_arguments", "task", "task_arguments", "size"]
"""Columns that identify a cell, apart from training settings and seed."""
ROW = ["machine_class", "model", "method", "method_arguments", "size"]
"""Columns that identify a row of a leaderboard."""
TELLING = {
    "model": ["model_source", "model_version", "evaluation"],
    "task": ["task_arguments", "task_version", "fingerprint", "metric_version"],
    "method": ["method_version"],
}
"""Columns whose values are added to a name if they differ among the runs with that name."""
CONTENT = r"-[0-9a-f]{16}\b"
"""Pattern of a file digest in the version of a task that is read from files."""


def _suffixes(places: "pd.Series[str]") -> "pd.Series[str]":
    """Shorten paths to the fewest last parts that keep them distinct."""
    parts = {place: place.strip("/").split("/") for place in set(places)}
    longest = max(map(len, parts.values()))
    for count in range(2, longest + 1):
        found = {place: "/".join(names[-count:]) for place, names in parts.items()}
        if len(set(found.values())) == len(found):
            return places.map(found)
    return places


SHORTER: "dict[str, Callable[[pd.Series[str]], pd.Series[str]]]" = {
    "model_source": _suffixes,
    # A commit hash of the Hub has forty digits.
    "model_version": lambda versions: versions.str[:12],
}
"""Functions that shorten the values which are added to the names of models."""


def measured_runs(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows of measured runs, without published results and trials of setting searches."""
    return table[(table["status"] != "published") & ("trial" not in table or table["trial"].isna())]


def distinct(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table with unambiguous names of `model`, `task` and `method`; applying it twice changes nothing more.

    A run that failed before its data was read has no fingerprint and gets the first one of its name. A file that was
    renamed between runs keeps its first name.
    """
    table = table.copy()
    if "task_version" in table:
        files = table["task_version"].fillna("").astype(str).str.contains(CONTENT)
        same = table[files].groupby(["task_arguments", "task_version"])["task"]
        table.loc[files, "task"] = same.transform("first")
    for name, columns in TELLING.items():
        for column in (column for column in columns if column in table):
            # Grouped by the names so far: names that are already distinct get no further suffix.
            group = table[name]
            values = table[column].fillna(table.groupby(group)[column].transform("first")).fillna("").astype(str)
            several = values.groupby(group).transform("nunique") > 1
            if column in SHORTER and several.any():
                values = values.where(~several, values.groupby(group).transform(SHORTER[column]))
            table[name] = table[name].where(~several, table[name] + " [" + values + "]")
    return _by_validation(table)


def _by_validation(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table with methods named by the settings that make validation losses of one cell incomparable."""
    for name in INCOMPARABLE if "training" in table else ():
        values = validated_on(table["training"], (name,))
        apart = values.groupby([table[column] for column in CELL]).transform("nunique") > 1
        # Applied to all tasks of a method, so that they stay in one row.
        apart = apart.groupby([table[column] for column in ROW]).transform("any")
        table["method"] = table["method"].where(~apart, table["method"] + " [" + values + "]")
    return table


def validated_on(training: "pd.Series[Any]", names: Collection[str] = INCOMPARABLE) -> "pd.Series[str]":
    """Return the training settings of runs that make their validation losses incomparable, as text."""

    def told(text: str) -> str:
        try:
            given = arguments(text)
        except ValueError:
            # Published settings are free text.
            return ""
        return arguments_text({name: given.get(name, Training.model_fields[name].default) for name in names})

    return training.map({text: told(str(text)) for text in training.unique()}).astype(str)


def method_labels(table: "pd.DataFrame") -> "pd.Series[str]":
    """Return the name of each run's method, with the arguments that distinguish its variants in the table."""
    keys = ["method", "method_arguments"]
    shown = {
        (method, text): name
        for method, texts in table.groupby("method")["method_arguments"].unique().items()
        for text, name in _told_apart(str(method), list(texts)).items()
    }
    names = [shown[key] for key in table[keys].itertuples(index=False, name=None)]
    import pandas as pd

    return pd.Series(names, table.index, dtype=str)


def _told_apart(method: str, texts: list[str]) -> dict[str, str]:
    """Return a name for each variant of a method, by the text of its arguments."""
    if len(texts) == 1:
        return {texts[0]: method}
    try:
        variants = {text: arguments(text) for text in texts}
    except ValueError:
        # Published arguments are free text.
        return {text: f"{method}({text})" if text else method for text in texts}
    first = next(iter(variants.values()))
    alike = [key for key, value in first.items() if all(key in v and v[key] == value for v in variants.values())]
    own = {text: {k: v for k, v in given.items() if k not in alike} for text, given in variants.items()}
    return {text: f"{method}({arguments_text(given)})" if given else method for text, given in own.items()}
