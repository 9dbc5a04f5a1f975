"""Input of studies: a table of runs, their curves, and values that several studies share, computed once."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from peftbench.core.text_escaping import visible
from peftbench.studies import Study, studies
from peftbench.studies._comparable_groups import Group, groups
from peftbench.studies._figure_style import Style, styles
from peftbench.studies._run_labels import distinct, measured_runs, method_labels
from peftbench.studies._setting_selection import compared_runs
from peftbench.studies.leaderboard import Leaderboard, of_compared
from peftbench.studies.presentation_blocks import Section

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.studies._pscp_weights import Weights


TEXTS = "model method method_arguments task task_arguments machine_class metric training tuned error notes".split()
"""Columns of a table of runs with text from outside the program."""


@dataclass(frozen=True, eq=False)
class RunData:
    """Runs with their curves and derived values; made by `run_data`.

    `table`: one row per run (`peftbench.table`) with distinct names, including search trials, without published rows.
    `curves`: one row per validation (id of the run, step, tokens, seconds, train_loss, validation_loss). `weights`: the
    PSCP weights of the leaderboards.
    """

    table: "pd.DataFrame"
    curves: "pd.DataFrame"
    weights: "tuple[Weights, ...]" = ()

    @cached_property
    def compared(self) -> "pd.DataFrame":
        """Compared runs, with the chosen settings and a column `label`."""
        return compared_runs(self.table)

    @cached_property
    def groups(self) -> list[Group]:
        """Compared runs by model, train size and machine class."""
        return groups(self.compared)

    @cached_property
    def leaderboards(self) -> tuple[Leaderboard, ...]:
        """One leaderboard per group; empty without runs."""
        return of_compared(self.compared, weights=self.weights) if len(self.compared) else ()

    @property
    def sections(self) -> list[Section]:
        """Sections of all studies that apply to the runs, in the order of a report."""
        return self._made(studies().values())

    @property
    def printed_sections(self) -> list[Section]:
        """The sections for the terminal."""
        return self._made(study for study in studies().values() if study.printed)

    def _made(self, some: Iterable[Study]) -> list[Section]:
        made = []
        for study in some:
            if study.name not in self._sections:
                self._sections[study.name] = study.section(self)
            if (section := self._sections[study.name]) is not None:
                made.append(section)
        return made

    @cached_property
    def _sections(self) -> dict[str, Section | None]:
        return {}

    @cached_property
    def styles(self) -> dict[str, Style]:
        """Colour, marker and dash of each method label, the same in all figures."""
        # Without search trials a method may have fewer variants and therefore a shorter name.
        return styles([*method_labels(self.table), *method_labels(measured_runs(self.table))])


def run_data(table: "pd.DataFrame", curves: "pd.DataFrame", weights: "Iterable[Weights]" = ()) -> RunData:
    """Return the input of studies from a table of runs and their curves."""
    return RunData(distinct(printable(table)), curves, tuple(weights))


def printable(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table of runs with control characters escaped in names, arguments and errors."""
    texts = [name for name in TEXTS if name in table]
    return table.assign(**{name: table[name].map(visible, na_action="ignore") for name in texts})
