"""Leaderboards in the terminal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.text import Text

from peftbench.core.text_escaping import visible
from peftbench.report.columns import board_cells
from peftbench.report.published_tables import HEADING, REMARK
from peftbench.report.tables import board_remarks
from peftbench.studies import _run_conditions, pscp_sensitivity
from peftbench.studies.leaderboard import Leaderboard
from peftbench.studies.presentation_blocks import Section, Table

GAP = 2
"""Spaces between columns."""
MOST_FOLDED = 1000
"""Rows of the longest table whose texts are folded to fit the terminal."""


@dataclass(frozen=True)
class View:
    """A leaderboard for rich. Columns that do not fit are moved to further tables that repeat rank and method."""

    board: Leaderboard

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        rank, method, *others = map(_shown, zip(*board_cells(self.board), strict=True))
        styles = ["bold" if row.rank == 1 else "dim" if row.rank is None else "" for row in self.board.rows]
        room = options.max_width - _width(rank) - _width(method)
        yield _line(self.board.title, "bold")
        for shown in _packed(others, room):
            yield _rich_table([rank, method, *shown], range(1, 2), styles)
        for remark in [*board_remarks(self.board), *pscp_sensitivity.sensitivity_remarks(self.board)]:
            yield Padding(_line(remark), (0, 0, 0, 1))
        made = _run_conditions.conditions_table(self.board)
        yield _line(made.title, "")
        yield from _sheet(made, options.max_width)
        yield Text()


def _rich_table(columns: Sequence[tuple[str, ...]], names: range, styles: Iterable[str]) -> rich_table.Table:
    """Return a table of columns, each with its heading first. `names` are the places of the columns of names."""
    table = rich_table.Table(box=None, padding=(0, GAP, 0, 0), header_style="bold")
    for place, (heading, *_) in enumerate(columns):
        # Only names may wrap, since a wrapped number could be misread.
        is_name = place in names
        table.add_column(Text(heading), justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold")
    for line, style in zip(zip(*(cells[1:] for cells in columns), strict=True), styles, strict=False):
        table.add_row(*map(Text, line), style=style)
    return table


def print_table(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column has names. Nothing is cut off: long texts wrap on a terminal."""
    if not console.is_terminal or len(rows) > MOST_FOLDED:
        _print_aligned(console, [_shown(row) for row in (headings, *rows)])
        return
    first, *others = headings
    shown = [
        rich_table.Column(first, no_wrap=True),
        *(rich_table.Column(heading, overflow="fold") for heading in others),
    ]
    table = rich_table.Table(*shown, box=None, padding=(0, GAP, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*map(Text, _shown(row)))
    console.print(table)


def _print_aligned(console: Console, rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as their widest cell."""
    widths = [max(map(cell_len, column)) + GAP for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        console.file.write("".join(cells).rstrip() + "\n")


def print_published(console: Console, sheets: Sequence[Table]) -> None:
    """Print published results under their own heading, after measured ones."""
    for sheet in sheets:
        console.print(_line(f"{HEADING}: {sheet.title}", "bold"))
        _print_sheet(console, sheet)
    if sheets:
        console.print(Padding(_line(REMARK), (0, 0, 1, 1)))


def print_section(console: Console, section: Section) -> None:
    """Print a section without its figures."""
    console.print(_line(section.title, "bold"))
    for sheet in section.sheets:
        console.print(_line(sheet.title, ""))
        _print_sheet(console, sheet)
    for remark in section.remarks:
        console.print(Padding(_line(remark), (0, 0, 0, 1)))
    console.print()


def _print_sheet(console: Console, sheet: Table) -> None:
    for part in _sheet(sheet, console.width):
        console.print(part)


def _sheet(sheet: Table, width: int) -> Iterator[RenderableType]:
    """Yield a table in parts no wider than `width` that repeat its name columns, and its note."""
    columns = [_shown(cells) for cells in zip(sheet.headings, *sheet.lines, strict=True)]
    names, others = columns[: sheet.names], columns[sheet.names :]
    for shown in _packed(others, width - min(sum(map(_width, names)), width // 2)) if sheet.lines else ():
        yield _rich_table([*names, *shown], range(sheet.names), repeat(""))
    if sheet.note:
        yield Padding(_line(sheet.note), (0, 0, 0, 1))


def _line(text: str, style: str = "dim") -> Text:
    return Text(visible(text), style=style)


def _shown(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(visible, cells))


def _width(cells: tuple[str, ...]) -> int:
    return max(map(cell_len, cells)) + GAP


def _packed(cells: list[tuple[str, ...]], room: int) -> list[list[tuple[str, ...]]]:
    """Return the columns in groups no wider than `room`, at least one per group."""
    groups: list[list[tuple[str, ...]]] = [[]]
    for column in cells:
        if groups[-1] and sum(map(_width, groups[-1])) + _width(column) > room:
            groups.append([])
        groups[-1].append(column)
    return groups
