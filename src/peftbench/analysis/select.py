"""Choosing among training settings, on validation rows alone.

Where a grid sweeps training settings (a learning rate, say), each method gets, on each task and train size, the one
setting with the lowest validation loss, averaged over the seeds: never the best of each seed, and never by test score.
"""

from typing import TYPE_CHECKING

from peftbench.analysis.names import distinct, labels, measured

if TYPE_CHECKING:
    import pandas as pd

CELL = ["machine_class", "model", "method", "method_arguments", "task", "task_arguments", "size"]


def select(table: "pd.DataFrame") -> "pd.DataFrame":
    """The runs of the chosen settings, with a column `trials`: from how many settings they were chosen.

    `table` has one row a run (`peftbench.table`). A setting that lacks a seed that another has, or that failed on one,
    is chosen only if all do. A cell with one setting is left as it is.
    """
    table = table.assign(trials=table.groupby(CELL)["training"].transform("nunique"))
    several = table[table["trials"] > 1]
    if several.empty:
        return table
    settings = several.groupby([*CELL, "training"])
    scored = settings.agg(seeds=("validation_loss", "count"), loss=("validation_loss", "mean")).reset_index()
    scored = scored.sort_values(["seeds", "loss", "training"], ascending=[False, True, True])
    chosen = scored.drop_duplicates(CELL)[[*CELL, "training"]]
    kept = several.merge(chosen, on=[*CELL, "training"])
    import pandas as pd

    return pd.concat([table[table["trials"] == 1], kept], ignore_index=True)


def compared(table: "pd.DataFrame") -> "pd.DataFrame":
    """The runs that are compared, with the chosen settings: `label` of the method, `size` as text, numbers as floats.

    Rows are in an order of their own: sums of floats depend on it, and results must not depend on that of the runs.
    """
    numbers = ["score", "score_error", "train_rows", "trainable_parameters"]
    table = select(distinct(measured(table)))
    table = table.reindex(columns=table.columns.union(numbers, sort=False)).astype(dict.fromkeys(numbers, float))
    return table.assign(label=labels(table), size=table["size"].astype(str)).sort_values(["task", "seed", "id"])
