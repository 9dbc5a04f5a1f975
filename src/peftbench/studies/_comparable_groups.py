"""Groups of runs that are compared with each other: one model, train size and machine class, as on a leaderboard."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftbench.studies._train_sizes import in_order

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one model, train size and machine class; the column `label` is the method's name on leaderboards."""

    model: str
    size: str
    machine_class: str
    runs: "pd.DataFrame"

    def __str__(self) -> str:
        return f"{self.model}, {self.size} training rows, {self.machine_class}"


def groups(runs: "pd.DataFrame") -> list[Group]:
    """Return groups of compared runs (`peftbench.studies._setting_selection`), by model, machine class and size."""
    keys = ["model", "size", "machine_class"]
    found = [Group(str(model), str(size), str(machine), own) for (model, size, machine), own in runs.groupby(keys)]
    return sorted(found, key=lambda group: (group.model, group.machine_class, in_order(group.size)))
