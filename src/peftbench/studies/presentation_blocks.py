"""Blocks that a study is presented as: tables, figures and text. Renderers only know these blocks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table: its title, headings, lines, and a note below it. The first `names` columns are text."""

    title: str
    headings: tuple[str, ...]
    names: int
    lines: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure: its title, a Vega-Lite specification, and a text alternative (`alt`).

    `spec` is plain JSON that contains the data and no `config`: the renderer sets colours and fonts.
    """

    title: str
    spec: Mapping[str, Any]
    alt: str


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    `name` is the anchor of the section; `data` holds plain values for programs. `draw` makes the figures, which only
    written reports show.
    """

    name: str
    title: str
    about: str
    sheets: tuple[Table, ...] = ()
    draw: Callable[[], Iterable[Figure | None]] = tuple
    remarks: tuple[str, ...] = ()
    data: Any = None

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """The figures, drawn on first access."""
        return tuple(figure for figure in self.draw() if figure is not None)
