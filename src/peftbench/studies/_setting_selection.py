"""Selection of training settings by validation loss.

If a grid sweeps training settings (such as the learning rate), each method gets, per task and train size, the one
setting with the lowest validation loss averaged over the seeds. Settings are never chosen per seed or by test score.
Settings under which validation losses are not comparable (`peftbench.core.search_space.INCOMPARABLE`) are kept apart.
Settings from a search (`peftbench.tuning`) were chosen earlier, by the same rule on the seeds of the trials.
"""

from typing import TYPE_CHECKING

from peftbench.studies._run_labels import CELL, distinct, measured_runs, method_labels, validated_on

if TYPE_CHECKING:
    import pandas as pd

VERSIONS = ["model_version", "method_version", "task_version", "evaluation"]
SETTING = ["training", "tuned"]
"""Columns that are selected: training settings, and method arguments that a search has set."""
ON = "validated_on"
"""Temporary column with the settings that make validation losses incomparable."""

NUMBERS = ["score", "score_error", "chance", "train_rows", "trainable_parameters", "retention_loss_change"]
"""Columns that analyses need; they are added if a table lacks them."""


def trials_of(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the trials of setting searches."""
    return table[(table["status"] != "published") & table["trial"].notna()] if "trial" in table else table[:0]


def with_search_counts(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the measured runs with a column `searched`: the number of search trials on the same cell.

    A trial is not counted if a run has the same settings.
    """
    table = table if "tuned" in table else table.assign(tuned="")
    runs, trials = measured_runs(table), trials_of(table)
    if trials.empty:
        return runs.assign(searched=0)
    runs, trials = (held.assign(**{ON: validated_on(held["training"])}) for held in (runs, trials))
    key = [*CELL, *VERSIONS, ON]
    settings = runs[[*key, *SETTING]].drop_duplicates().merge(trials[[*key, *SETTING]].drop_duplicates())
    # Each search numbers its own trials.
    named = trials["trial"].astype(str) + (" " + trials["search"].astype(str) if "search" in trials else "")
    found = named.groupby([trials[name] for name in key]).nunique().sub(settings.groupby(key).size(), fill_value=0)
    held = runs.merge(found.rename("searched").reset_index(), on=key, how="left").drop(columns=ON)
    return held.assign(searched=held["searched"].fillna(0).astype(int))


def select(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the runs of the chosen settings, with a column `trials`: the number of settings chosen from.

    `table` has one row per run (`peftbench.table`, preferably after `with_search_counts`). The setting with a
    validation loss on the most seeds is preferred, then the one with the lowest mean loss. A cell with one setting is
    left unchanged.
    """
    if "searched" not in table:
        table = with_search_counts(table)
    # Converted to text, since the columns of an empty table are numeric.
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
    """Return the runs that are compared, with the chosen settings: `label`, `size` as text, numbers as floats.

    Published rows and search trials are left out. Rows are sorted, since sums of floats depend on the order and results
    must not depend on the order of the runs.
    """
    table = select(distinct(with_search_counts(table)))
    table = table.reindex(columns=table.columns.union(NUMBERS, sort=False)).astype(dict.fromkeys(NUMBERS, float))
    return table.assign(label=method_labels(table), size=table["size"].astype(str)).sort_values(["task", "seed", "id"])
