"""Names that tell apart what must not be mixed: versions of a model or a task, other data, other ways of testing."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from peftbench.core.search_space import INCOMPARABLE
from peftbench.core.spec import Training
from peftbench.results.table_rows import arguments, arguments_text

if TYPE_CHECKING:
    import pandas as pd

CELL = ["machine_class", "model", "method", "method_arguments", "task", "task_arguments", "size"]
"""Columns of what runs differ in beside their training settings and their seed."""
ROW = ["machine_class", "model", "method", "method_arguments", "size"]
"""Columns of what stands in one row of a leaderboard."""
TELLING = {
    "model": ["model_source", "model_version", "evaluation"],
    "task": ["task_arguments", "task_version", "fingerprint", "metric_version"],
    "method": ["method_version"],
}
"""Columns that are added to a name where they differ among the runs of that name."""
CONTENT = r"-[0-9a-f]{16}\b"
"""In the version of a task that is made of files: the digest of one."""


def _suffixes(places: "pd.Series[str]") -> "pd.Series[str]":
    """Paths by as many of their last parts as tell them apart."""
    parts = {place: place.strip("/").split("/") for place in set(places)}
    longest = max(map(len, parts.values()))
    for count in range(2, longest + 1):
        found = {place: "/".join(names[-count:]) for place, names in parts.items()}
        if len(set(found.values())) == len(found):
            return places.map(found)
    return places


SHORTER: "dict[str, Callable[[pd.Series[str]], pd.Series[str]]]" = {
    "model_source": _suffixes,
    # A commit of the Hub has forty digits.
    "model_version": lambda versions: versions.str[:12],
}
"""How what tells models apart is shortened."""


def measured_runs(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of runs that count: neither what others published, nor the trials of a search for settings."""
    return table[(table["status"] != "published") & ("trial" not in table or table["trial"].isna())]


def distinct(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with `model`, `task` and `method` names that stand for one thing each; twice is as good as once.

    A run that failed before its data was read has no fingerprint, and counts as one of the first. A file that has been
    renamed between its runs keeps the first of its names.
    """
    table = table.copy()
    if "task_version" in table:
        files = table["task_version"].fillna("").astype(str).str.contains(CONTENT)
        same = table[files].groupby(["task_arguments", "task_version"])["task"]
        table.loc[files, "task"] = same.transform("first")
    for name, columns in TELLING.items():
        for column in (column for column in columns if column in table):
            # By the names so far: what is told apart already needs no more.
            group = table[name]
            values = table[column].fillna(table.groupby(group)[column].transform("first")).fillna("").astype(str)
            several = values.groupby(group).transform("nunique") > 1
            if column in SHORTER and several.any():
                values = values.where(~several, values.groupby(group).transform(SHORTER[column]))
            table[name] = table[name].where(~several, table[name] + " [" + values + "]")
    return _by_validation(table)


def _by_validation(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with methods named after the settings by which the validation losses of one cell are not comparable."""
    for name in INCOMPARABLE if "training" in table else ():
        values = validated_on(table["training"], (name,))
        apart = values.groupby([table[column] for column in CELL]).transform("nunique") > 1
        # On all tasks of a method, so that they are still those of one row.
        apart = apart.groupby([table[column] for column in ROW]).transform("any")
        table["method"] = table["method"].where(~apart, table["method"] + " [" + values + "]")
    return table


def validated_on(training: "pd.Series[Any]", names: Collection[str] = INCOMPARABLE) -> "pd.Series[str]":
    """What the validation losses of runs are of: those of their training settings whose values cannot be compared."""

    def told(text: str) -> str:
        try:
            given = arguments(text)
        except ValueError:
            # Published settings are in their source's words.
            return ""
        return arguments_text({name: given.get(name, Training.model_fields[name].default) for name in names})

    return training.map({text: told(str(text)) for text in training.unique()}).astype(str)


def method_labels(table: "pd.DataFrame") -> "pd.Series[str]":
    """The name of each run's method, with the arguments that tell apart the variants of it that the table has."""
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
    """A name for each variant of a method, by the text of its arguments."""
    if len(texts) == 1:
        return {texts[0]: method}
    try:
        variants = {text: arguments(text) for text in texts}
    except ValueError:
        # Published arguments are in their source's words.
        return {text: f"{method}({text})" if text else method for text in texts}
    first = next(iter(variants.values()))
    alike = [key for key, value in first.items() if all(key in v and v[key] == value for v in variants.values())]
    own = {text: {k: v for k, v in given.items() if k not in alike} for text, given in variants.items()}
    return {text: f"{method}({arguments_text(given)})" if given else method for text, given in own.items()}
