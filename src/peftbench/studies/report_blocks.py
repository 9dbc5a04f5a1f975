"""What a study is presented as: tables, figures and text. Renderers know these and nothing else of a study."""

from collections.abc import Mapping
from dataclasses import dataclass
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
class Figure:
    """A figure: its heading, a Vega-Lite specification, and in words what it shows (`alt`).

    `spec` is plain JSON with the data in it, and has no `config`: how ink and fonts look is up to the renderer.
    """

    title: str
    spec: Mapping[str, Any]
    alt: str


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    `name` is its anchor; `data` is plain values for programs.
    `printed`: in the terminal too, not only in what is written.
    """

    name: str
    title: str
    about: str
    sheets: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    remarks: tuple[str, ...] = ()
    data: Any = None
    printed: bool = True
