"""Runs that are compared with each other: those of one model, train size and machine class, as on a leaderboard."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftbench.analysis.names import distinct, labels, measured
from peftbench.analysis.select import select

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ["score", "score_error", "chance", "trainable_parameters", "retention_loss_change"]


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one model, train size and machine class, with a column `label`: the method as leaderboards name it."""

    model: str
    size: str
    machine_class: str
    runs: "pd.DataFrame"

    def __str__(self) -> str:
        return f"{self.model}, {self.size} training rows, {self.machine_class}"


def groups(table: "pd.DataFrame") -> list[Group]:
    """The groups of a table of runs, by model, machine class and size; of swept settings the chosen ones.

    Published rows and the trials of searches are left out. They do not depend on the order of rows.
    """
    table = select(distinct(measured(table)))
    table = table.reindex(columns=table.columns.union(NUMBERS, sort=False)).astype(dict.fromkeys(NUMBERS, float))
    table = table.assign(label=labels(table), size=table["size"].astype(str)).sort_values(["task", "seed", "id"])
    keys = ["model", "size", "machine_class"]
    found = []
    for _, runs in table.groupby(keys):
        model, size, machine = map(str, runs[keys].iloc[0])
        found.append(Group(model, size, machine, runs))
    return sorted(found, key=lambda g: (g.model, g.machine_class, float(g.size) if g.size.isdigit() else math.inf))
