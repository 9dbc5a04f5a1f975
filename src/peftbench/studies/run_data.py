"""What studies are made of: a table of runs, their curves, and what several studies need of both, computed once."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from peftbench.core.safe_text import visible
from peftbench.studies._figures import Style, styles
from peftbench.studies._groups import Group, groups
from peftbench.studies._run_labels import distinct, measured_runs, method_labels
from peftbench.studies._setting_selection import compared_runs
from peftbench.studies.leaderboard import Leaderboard, of_compared
from peftbench.studies.report_blocks import Section

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.studies._pscp_weights import Weights


TEXTS = "model method method_arguments task task_arguments machine_class metric training tuned error notes".split()
"""Columns of a table of runs with texts of others."""


@dataclass(frozen=True, eq=False)
class RunData:
    """Runs and what is known of them.

    `table`: one row a run (`peftbench.table`), trials of searches among them, published rows not; its names have been
    made distinct. `curves`: one row a validation (id of the run, step, tokens, seconds, train_loss, validation_loss).
    `weights` of PSCP are those of the leaderboards. Made by `run_data`.
    """

    table: "pd.DataFrame"
    curves: "pd.DataFrame"
    weights: "tuple[Weights, ...]" = ()

    @cached_property
    def compared(self) -> "pd.DataFrame":
        """The runs that are compared, with the chosen settings and a column `label`."""
        return compared_runs(self.table)

    @cached_property
    def groups(self) -> list[Group]:
        """The compared runs by model, train size and machine class."""
        return groups(self.compared)

    @cached_property
    def leaderboards(self) -> tuple[Leaderboard, ...]:
        """A leaderboard for each group; none without runs."""
        return of_compared(self.compared, weights=self.weights) if len(self.compared) else ()

    @cached_property
    def sections(self) -> list[Section]:
        """The sections of the studies that the runs allow, in the order of a report."""
        from peftbench.studies import sections

        return sections(self)

    @cached_property
    def styles(self) -> dict[str, Style]:
        """Colour, marker and dash of each label of a method, the same in all figures."""
        # Without the trials of searches a method may have fewer variants, and then a shorter name.
        return styles([*method_labels(self.table), *method_labels(measured_runs(self.table))])


def run_data(table: "pd.DataFrame", curves: "pd.DataFrame", weights: "Iterable[Weights]" = ()) -> RunData:
    """What studies take, of a table of runs and their curves."""
    return RunData(distinct(printable(table)), curves, tuple(weights))


def printable(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table of runs whose names, arguments and errors can be shown: without control characters."""
    texts = [name for name in TEXTS if name in table]
    return table.assign(**{name: table[name].map(visible, na_action="ignore") for name in texts})
