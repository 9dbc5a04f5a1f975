"""Studies: questions about a table of runs, one file each.

A study is a file of this folder without a leading underscore that has

- `ORDER`: its position in a report; `PRINTED = False` if only written reports show it, not the terminal;
- `analyse(data: RunData) -> Result | None`: a typed result whose values can be written as JSON, or `None` if the
  study does not apply to the runs; it formats no text;
- `present(result, styles) -> Section`: tables, figures and text (`presentation_blocks.py`); it computes nothing.

Renderers (`peftbench.report`) only know blocks. Studies are found by their files; there is no list to extend.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from peftbench.core.registry import did_you_mean

if TYPE_CHECKING:
    from peftbench.studies._figure_style import Style
    from peftbench.studies.presentation_blocks import Section
    from peftbench.studies.study_input import RunData


@dataclass(frozen=True)
class Study:
    """One question about runs: `analyse` computes the answer, `present` shows it."""

    name: str
    order: int
    analyse: "Callable[[RunData], Any]"
    present: "Callable[[Any, Mapping[str, Style]], Section]"
    printed: bool

    def section(self, data: "RunData") -> "Section | None":
        """Return the section of the report, or `None` if the study does not apply to the runs."""
        result = self.analyse(data)
        return None if result is None else self.present(result, data.styles)


@cache
def studies() -> dict[str, Study]:
    """Return all studies by name, in the order of a report."""
    found = []
    for entry in pkgutil.iter_modules(__path__):
        if not entry.name.startswith("_"):
            module = import_module(f"{__name__}.{entry.name}")
            if hasattr(module, "present"):
                printed = getattr(module, "PRINTED", True)
                found.append(Study(entry.name, module.ORDER, module.analyse, module.present, printed))
    return {study.name: study for study in sorted(found, key=lambda study: study.order)}


def study(name: str) -> Study:
    """Return the study with this name. Raises `UnknownNameError`."""
    if name not in studies():
        raise did_you_mean("study", name, list(studies()))
    return studies()[name]
