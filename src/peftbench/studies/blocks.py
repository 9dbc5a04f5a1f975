"""What a study is presented as: tables, figures and text. Renderers know these and nothing else of a study."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table: what it is about, its headings, its lines, and a note under it. The first `names` columns are text."""

    title: str
    headings: tuple[str, ...]
    names: int
    lines: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    `name` is its anchor, `figures` has what draws each figure as SVG, by heading; `data` is plain values for programs.
    `printed`: in the terminal too, not only in what is written.
    """

    name: str
    title: str
    about: str
    sheets: tuple[Table, ...] = ()
    figures: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    data: Any = None
    printed: bool = True
