"""Tables in files: CSV, TSV, JSON, JSON lines and parquet, each as rows with named columns."""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftbench.registry import UserError, did_you_mean


class DataError(UserError):
    """A data set that cannot be used; the message names it, the cause and the way out."""


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, whose ending says its format. Raises `DataError`."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"data file {path}: {error.strerror}") from error
    return _table(path, stat.st_size, stat.st_mtime_ns)[0]


def digest(path: Path) -> str:
    """Eight hexadecimal digits of a file's content, bit for bit. Raises `DataError`."""
    table(path)
    stat = path.stat()
    return _table(path, stat.st_size, stat.st_mtime_ns)[1]


def need(path: Path, columns: Sequence[str], fewest: int) -> None:
    """Raises `DataError` if a file has not so many rows, `UnknownNameError` if it lacks a column."""
    rows = table(path)
    if len(rows) < fewest:
        raise DataError(f"data file {path} has {len(rows)} rows: at least {fewest} are needed")
    known = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        if name not in known:
            raise did_you_mean(f"column of data file {path}", name, known)


def text(row: Mapping[str, Any], column: str) -> str:
    """A cell as text; an empty one is empty text. Raises `ValueError` for a list or a table, and for no cell."""
    if column not in row:
        raise ValueError(f"it has no '{column}'")
    value = row[column]
    if isinstance(value, list | dict):
        raise ValueError(f"'{column}' holds a {'list' if isinstance(value, list) else 'table'}, not text")
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file. Raises `DataError`."""
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from error
    return rows


def first_row(path: Path) -> dict[str, Any]:
    """The first row of a parquet file. Raises `DataError` if it cannot be read or has none."""
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1):
                return dict(batch.to_pylist()[0])
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from error
    raise DataError(f"data file {path} has no rows")


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"data file {path} cannot be read: {one_line(error)}. Mend it, or remove it")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


@lru_cache(maxsize=8)
def _table(path: Path, _size: int, _changed: int) -> tuple[list[dict[str, Any]], str]:
    """The rows and the digest of a file, read once as long as its size and time stay."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"data file {path}: '{path.suffix}' is none of the endings {', '.join(READERS)}")
    try:
        rows = reader(path)
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()[:8]
    except (OSError, csv.Error, ValueError) as error:
        raise DataError(f"data file {path} cannot be read: {one_line(error)}. Mend it") from error
    return rows, found


def _delimited(delimiter: str) -> Callable[[Path], list[dict[str, Any]]]:
    def read(path: Path) -> list[dict[str, Any]]:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter=delimiter, strict=True))
        for number, row in enumerate(rows, 1):
            if None in row or None in row.values():
                raise ValueError(f"row {number} has not as many cells as the first line has names")
        return rows

    return read


def _json(path: Path) -> list[dict[str, Any]]:
    return _objects(json.loads(path.read_text(encoding="utf-8-sig")))


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    # Lines end with a line feed here; `splitlines` would cut a text at signs that JSON leaves as they are.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return _objects(rows)


def _objects(rows: Any) -> list[dict[str, Any]]:
    if not isinstance(rows, list):
        raise ValueError("it is no list of objects")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is no object with named values")
    return rows


READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": read_parquet,
}
