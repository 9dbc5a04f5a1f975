"""What a report says beside its leaderboards: a section for each question that the runs can answer.

A section is made by a function of `Evidence` in a module of its own; it returns `None` where the runs do not speak of
its question. Adding one is adding it to `MAKERS`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from peftbench.core.safe_text import visible

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.studies.figures import Style
    from peftbench.studies.leaderboard import Leaderboard
    from peftbench.studies.pscp_weights import Weights


NAMED = "model method method_arguments task task_arguments machine_class metric training tuned error notes".split()
"""Columns of a table of runs with texts of others."""


@dataclass(frozen=True)
class Evidence:
    """What a report is made of.

    `table`: one row a run (`peftbench.table`), trials of searches among them, published rows not; its names have been
    made distinct. `curves`: one row a validation (id of the run, step, tokens, seconds, train_loss, validation_loss).
    `boards`: their leaderboards. `looks`: colour, marker and dash of each label of a method.
    """

    table: "pd.DataFrame"
    curves: "pd.DataFrame"
    boards: "tuple[Leaderboard, ...]"
    looks: "Mapping[str, Style]"

    @cached_property
    def sections(self) -> list[Section]:
        """The sections that the runs allow, in order."""
        made = [make(self) for make in MAKERS]
        return [section for section in made if section is not None]


def evidence(table: "pd.DataFrame", curves: "pd.DataFrame", weights: "Iterable[Weights]" = ()) -> Evidence:
    """The evidence of a table of runs and their curves; `weights` of PSCP are those of the leaderboards."""
    from peftbench.studies.figures import styles
    from peftbench.studies.leaderboard import leaderboards
    from peftbench.studies.run_labels import distinct, labels, measured

    table = distinct(shown(table))
    boards = leaderboards(table, weights=weights) if len(measured(table)) else ()
    # Without the trials of searches a method may have fewer variants, and then a shorter name.
    return Evidence(table, curves, boards, styles([*labels(table), *labels(measured(table))]))


def shown(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table of runs whose names, arguments and errors can be shown: without control characters."""
    texts = [name for name in NAMED if name in table]
    return table.assign(**{name: table[name].map(visible, na_action="ignore") for name in texts})


def _made_by(module: str) -> Callable[[Evidence], Section | None]:
    """What makes the section of a module of this room. It is imported when asked: those modules import this one."""

    def make(evidence: Evidence) -> Section | None:
        section: Section | None = import_module(f"peftbench.studies.{module}").section(evidence)
        return section

    return make


MAKERS: tuple[Callable[[Evidence], Section | None], ...] = tuple(
    map(
        _made_by,
        (
            "data_remarks",
            "pairwise_differences",
            "stability_view",
            "data_scale_view",
            "convergence_view",
            "ablation_view",
            "pareto_view",
            "tuning_trials_view",
        ),
    )
)
