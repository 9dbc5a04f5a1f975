"""Rows of CSV and TSV. CSV has quotes around cells that need them; in TSV a quote may be that, or a sign of the text.

A TSV is read both ways, and the way that gives every row as many cells as the first line has names is taken. Where both
do, lines decide: two lines that are whole by themselves are not one row. Where rows are the same by both, quotes are
marks only in a column in which all cells have them, or those alone that need them, as programs write it.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 2**31 - 1
"""Characters of a cell: Python's own limit is 131,072."""
MARKS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
QUOTES = "quotes = false says that they are text, quotes = true that they enclose cells"


@dataclass(frozen=True)
class _Reading:
    """Records, the first of which are the names; with what is wrong at the end of them, if anything is."""

    records: list[list[str]]
    wrong: str = ""


def delimited_rows(text: str, delimiter: str, quotes: bool | None = None) -> list[dict[str, str]]:
    """The rows of a text. `quotes`: whether quotes enclose cells, where that is not to be found out.

    Lines without anything are passed over. Raises `ValueError` with the row that cannot be read.
    """
    reading = _chosen(text, delimiter, quotes)
    names, *records = reading.records or [[]]
    if len(names) == 1 and (other := next((mark for mark in MARKS if mark in names[0]), None)):
        raise ValueError(f"its first line has one name, with {MARKS[other]} in it: part cells by {MARKS[delimiter]}")
    if reading.wrong:
        raise ValueError(reading.wrong)
    check_column_names([name for name in names if name])
    # A column without a name, as an index or an empty column at the end, cannot be asked for.
    return [{name: cell for name, cell in zip(names, cells, strict=True) if name} for cells in records]


def check_column_names(names: Sequence[str]) -> None:
    """Raises `ValueError` for two columns of one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"it has {names.count(twice[0])} columns '{twice[0]}': give each a name of its own")


def _chosen(text: str, delimiter: str, quotes: bool | None) -> _Reading:
    if quotes is False:
        return _plain(text, delimiter)
    quoted = _quoted(text, delimiter)
    if quotes or '"' not in text:
        return quoted
    plain = _plain(text, delimiter)
    merged = not (quoted.wrong or plain.wrong) and len(quoted.records) < len(plain.records)
    if delimiter == "\t":
        if not (quoted.wrong or plain.wrong or merged):
            return quoted if _are_marks(quoted.records, plain.records) else plain
        if quoted.wrong and plain.wrong:
            return max(plain, quoted, key=lambda reading: len(reading.records))
        return plain if quoted.wrong or merged else quoted
    if merged:
        row = next(i for i, (one, other) in enumerate(zip(quoted.records, plain.records, strict=False)) if one != other)
        why = f"row {row} is one of several lines if quotes enclose cells, and each of them is a row if they are text"
        return _Reading([], f"{why}: {QUOTES}")
    return quoted


def _quoted(text: str, delimiter: str) -> _Reading:
    csv.field_size_limit(LONGEST)
    found: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if record:
                found.append(record)
            if wrong := _uneven(found):
                return _Reading(found, wrong)
    except csv.Error as error:
        way_out = f"write a quote in a cell twice, or enclose no cell: {QUOTES}"
        return _Reading(found, f"row {len(found)} (to line {reader.line_num}): its quotes: {error}; {way_out}")
    return _Reading(found)


def _plain(text: str, delimiter: str) -> _Reading:
    found: list[list[str]] = []
    for line in text.split("\n" if "\n" in text else "\r"):
        if not line.rstrip("\r"):
            continue
        found.append(line.rstrip("\r").split(delimiter))
        if wrong := _uneven(found):
            return _Reading(found, wrong)
    return _Reading(found)


def _uneven(records: Sequence[Sequence[str]]) -> str:
    """What is wrong with the number of cells of the last record, if anything is."""
    if not records or len(records[-1]) == len(records[0]):
        return ""
    counts = f"{len(records[-1])}, not {len(records[0])}"
    return f"row {len(records) - 1} has not as many cells as the first line has names ({counts})"


def _are_marks(quoted: Sequence[Sequence[str]], plain: Sequence[Sequence[str]]) -> bool:
    """Whether quotes enclose cells, by columns that are the same rows by both readings."""
    for values, raw in zip(zip(*quoted[1:], strict=True), zip(*plain[1:], strict=True), strict=True):
        enclosed = {i for i, cell in enumerate(raw) if cell.startswith('"')}
        filled = {i for i, cell in enumerate(raw) if cell}
        with_quote = {i for i, value in enumerate(values) if '"' in value}
        # Spreadsheets enclose cells with a comma too.
        with_comma = with_quote | {i for i, value in enumerate(values) if "," in value}
        if not (enclosed <= with_quote or enclosed in (filled, with_comma)):
            return False
    return True
