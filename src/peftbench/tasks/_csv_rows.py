"""Parse CSV and TSV. In CSV, quotes enclose cells; in TSV, quotes enclose cells or are part of the text.

A TSV is parsed both ways, and the parse in which every row has as many cells as the header is used. If both have, the
parse that keeps each line a row is used. If their rows are the same, quotes enclose cells only if in each column
either all cells are quoted or only those that need it.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 2**31 - 1
"""Maximum characters of a cell; the default of the `csv` module is 131,072."""
MARKS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
QUOTES = "quotes = false says that they are text, quotes = true that they enclose cells"


@dataclass(frozen=True)
class _Reading:
    """Parsed records, header first, and the error after the last record, if any."""

    records: list[list[str]]
    wrong: str = ""


def delimited_rows(text: str, delimiter: str, quotes: bool | None = None) -> list[dict[str, str]]:
    """Return the rows of a text. `quotes` says whether quotes enclose cells; `None` detects it.

    Empty lines are skipped. Raises `ValueError` with the number of the invalid row.
    """
    reading = _chosen(text, delimiter, quotes)
    names, *records = reading.records or [[]]
    if len(names) == 1 and (other := next((mark for mark in MARKS if mark in names[0]), None)):
        raise ValueError(f"its first line has one name, with {MARKS[other]} in it: part cells by {MARKS[delimiter]}")
    if reading.wrong:
        raise ValueError(reading.wrong)
    check_column_names([name for name in names if name])
    # A column without a name, such as an index or an empty last column, cannot be selected.
    return [{name: cell for name, cell in zip(names, cells, strict=True) if name} for cells in records]


def check_column_names(names: Sequence[str]) -> None:
    """Raise `ValueError` if two columns have the same name."""
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
    """Return an error if the last record has not as many cells as the header, else an empty string."""
    if not records or len(records[-1]) == len(records[0]):
        return ""
    counts = f"{len(records[-1])}, not {len(records[0])}"
    return f"row {len(records) - 1} has not as many cells as the first line has names ({counts})"


def _are_marks(quoted: Sequence[Sequence[str]], plain: Sequence[Sequence[str]]) -> bool:
    """Return True if quotes enclose cells in every column. Both parses have the same rows."""
    for values, raw in zip(zip(*quoted[1:], strict=True), zip(*plain[1:], strict=True), strict=True):
        enclosed = {i for i, cell in enumerate(raw) if cell.startswith('"')}
        filled = {i for i, cell in enumerate(raw) if cell}
        with_quote = {i for i, value in enumerate(values) if '"' in value}
        # Spreadsheets also quote cells that contain a comma.
        with_comma = with_quote | {i for i, value in enumerate(values) if "," in value}
        if not (enclosed <= with_quote or enclosed in (filled, with_comma)):
            return False
    return True
