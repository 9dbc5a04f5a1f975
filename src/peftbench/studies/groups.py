"""Runs that are compared with each other: those of one model, train size and machine class, as on a leaderboard."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftbench.studies.model_selection import compared
from peftbench.studies.train_sizes import in_order

if TYPE_CHECKING:
    import pandas as pd


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
    """The groups of the compared runs of a table (`compared`), by model, machine class and size."""
    held, keys = compared(table), ["model", "size", "machine_class"]
    found = [Group(str(model), str(size), str(machine), runs) for (model, size, machine), runs in held.groupby(keys)]
    return sorted(found, key=lambda group: (group.model, group.machine_class, in_order(group.size)))
