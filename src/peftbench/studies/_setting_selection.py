"""Choosing among training settings, on validation rows alone.

Where a grid sweeps training settings (a learning rate, say), each method gets, on each task and train size, the one
setting with the lowest validation loss, averaged over the seeds: never the best of each seed, and never by test score.
There is no choice among settings that change what a validation loss is of (`peftbench.core.search_space.INCOMPARABLE`).
Where settings were searched for (`peftbench.tuning`), their choice came before, by the same rule on the trials' seed.
"""

from typing import TYPE_CHECKING

from peftbench.studies._run_labels import CELL, distinct, measured_runs, method_labels, validated_on

if TYPE_CHECKING:
    import pandas as pd

VERSIONS = ["model_version", "method_version", "task_version", "evaluation"]
SETTING = ["training", "tuned"]
"""Columns of what is chosen: training settings, and what a search gave to arguments of the method."""
ON = "validated_on"
"""A column for what validation losses are of, while there is a choice to be made."""

NUMBERS = ["score", "score_error", "chance", "train_rows", "trainable_parameters", "retention_loss_change"]
"""Columns that analyses count on, which a table may lack."""


def trials_of(table: "pd.DataFrame") -> "pd.DataFrame":
    """The trials of searches for settings."""
    return table[(table["status"] != "published") & table["trial"].notna()] if "trial" in table else table[:0]


def with_search_counts(table: "pd.DataFrame") -> "pd.DataFrame":
    """The runs that count, with a column `searched`: how many trials of a search were on the same cell.

    A trial whose settings a run has is not counted, as that run stands for it.
    """
    table = table if "tuned" in table else table.assign(tuned="")
    runs, trials = measured_runs(table), trials_of(table)
    if trials.empty:
        return runs.assign(searched=0)
    runs, trials = (held.assign(**{ON: validated_on(held["training"])}) for held in (runs, trials))
    key = [*CELL, *VERSIONS, ON]
    settings = runs[[*key, *SETTING]].drop_duplicates().merge(trials[[*key, *SETTING]].drop_duplicates())
    # Searches number their trials each by itself.
    named = trials["trial"].astype(str) + (" " + trials["search"].astype(str) if "search" in trials else "")
    found = named.groupby([trials[name] for name in key]).nunique().sub(settings.groupby(key).size(), fill_value=0)
    held = runs.merge(found.rename("searched").reset_index(), on=key, how="left").drop(columns=ON)
    return held.assign(searched=held["searched"].fillna(0).astype(int))


def select(table: "pd.DataFrame") -> "pd.DataFrame":
    """The runs of the chosen settings, with a column `trials`: from how many settings they were chosen.

    `table` has one row a run (`peftbench.table`, or better `searched` of it). A setting that lacks a seed that another
    has, or that failed on one, is chosen only if all do. A cell with one setting is left as it is.
    """
    if "searched" not in table:
        table = with_search_counts(table)
    # As text, since a column of a table without runs is one of numbers.
    setting = table["training"].astype(str) + "; " + table["tuned"].astype(str)
    table, key = table.assign(**{ON: validated_on(table["training"])}), [*CELL, ON]
    count = setting.groupby([table[name] for name in key]).transform("nunique")
    table = table.assign(trials=count + table["searched"]).drop(columns="searched")
    several = table[count > 1]
    if several.empty:
        return table.drop(columns=ON)
    settings = several.groupby([*key, *SETTING])
    scored = settings.agg(seeds=("validation_loss", "count"), loss=("validation_loss", "mean")).reset_index()
    scored = scored.sort_values(["seeds", "loss", *SETTING], ascending=[False, True, True, True])
    chosen = scored.drop_duplicates(key)[[*key, *SETTING]]
    kept = several.merge(chosen, on=[*key, *SETTING])
    import pandas as pd

    return pd.concat([table[count == 1], kept], ignore_index=True).drop(columns=ON)


def compared_runs(table: "pd.DataFrame") -> "pd.DataFrame":
    """The runs that are compared, with the chosen settings: `label` of the method, `size` as text, numbers as floats.

    Published rows and the trials of searches are left out. Rows are in an order of their own: sums of floats depend on
    it, and results must not depend on that of the runs.
    """
    table = select(distinct(with_search_counts(table)))
    table = table.reindex(columns=table.columns.union(NUMBERS, sort=False)).astype(dict.fromkeys(NUMBERS, float))
    return table.assign(label=method_labels(table), size=table["size"].astype(str)).sort_values(["task", "seed", "id"])
