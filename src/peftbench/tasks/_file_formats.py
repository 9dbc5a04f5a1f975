"""Read CSV, TSV, JSON, JSON Lines and Parquet files as rows with named columns."""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError, did_you_mean
from peftbench.tasks import _csv_rows
from peftbench.tasks._encodings import decoded_text
from peftbench.tasks._table_cell_parsing import check_text

NUMBER_TYPES = ("float", "halffloat")
"""Arrow's 32-bit and 16-bit floats. Digits beyond their precision are noise."""


class DataError(UserError):
    """A dataset cannot be used; the message names the dataset, the cause and the solution."""


@dataclass(frozen=True)
class Format:
    """Format of a text file that cannot be detected: a non-UTF-8 encoding, and whether quotes enclose cells."""

    encoding: str = ""
    quotes: bool | None = None


def read_table(path: Path, form: Format = Format()) -> list[dict[str, Any]]:
    """Return the rows of a file; its extension is the format. Class labels are names. Raises `DataError`."""
    return _table(path, stamp(path), form)


def content_digest(path: Path) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a file. Raises `DataError`."""
    return _digest(path, stamp(path))


def stamp(path: Path) -> tuple[int, int]:
    """Return size and modification time of a file, the keys of cached content. Raises `DataError`."""
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"data file {path}: {getattr(error, 'strerror', None) or error}") from error
    return stat.st_size, stat.st_mtime_ns


def need(path: Path, form: Format, columns: Sequence[str], fewest: int) -> None:
    """Raise `DataError` for fewer than `fewest` rows, `UnknownNameError` for a missing column."""
    rows = read_table(path, form)
    if len(rows) < fewest:
        raise DataError(f"data file {path} has {len(rows)} rows: at least {fewest} are needed")
    known = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        if name not in known:
            raise did_you_mean(f"column of data file {path}", name, known)


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file; class labels are integers. Raises `DataError`."""
    import pyarrow.parquet

    try:
        return _rows(pyarrow.parquet.read_table(path))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from error


def first_row(path: Path) -> dict[str, Any]:
    """Return the first row of a Parquet file. Raises `DataError` if it is unreadable or empty."""
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1):
                return dict(batch.to_pylist()[0])
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from error
    raise DataError(f"data file {path} has no rows")


def class_names(path: Path) -> dict[str, list[str]]:
    """Return the names of integer class labels by column, from the metadata that `datasets` writes."""
    import pyarrow.parquet

    try:
        return _class_names(pyarrow.parquet.read_schema(path))
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from error


def _class_names(schema: Any) -> dict[str, list[str]]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        named = {name: fact["names"] for name, fact in features.items() if fact.get("_type") == "ClassLabel"}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    return {name: list(map(str, names)) for name, names in named.items() if isinstance(names, list)}


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"data file {path} cannot be read: {one_line(error)}. Correct or remove it")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


@lru_cache(maxsize=64)
def _digest(path: Path, _stamp: tuple[int, int]) -> str:
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()[:16]
    except OSError as error:
        raise DataError(f"data file {path}: {error.strerror}") from error


@lru_cache(maxsize=8)
def _table(path: Path, _stamp: tuple[int, int], form: Format) -> list[dict[str, Any]]:
    """Return the rows of a file, cached until its size or modification time changes."""
    ending = path.suffix.lower()
    if ending != PARQUET and ending not in READERS:
        raise DataError(f"data file {path}: '{path.suffix}' is none of the endings {', '.join([*READERS, PARQUET])}")
    try:
        if ending == PARQUET:
            rows = _parquet(path)
        else:
            content = path.read_bytes()
            reader = READERS[ending]

            def parse(text: str) -> list[dict[str, Any]]:
                return reader(text, form)

            rows = parse(decoded_text(content, form.encoding, parse)) if content else []
        _check_names(rows)
    except (OSError, csv.Error, ValueError) as error:
        raise DataError(f"data file {path} cannot be read: {one_line(error)}") from error
    except RecursionError as error:
        raise DataError(f"data file {path} cannot be read: values lie in each other too deeply. Mend it") from error
    return rows


def _check_names(rows: Sequence[Mapping[str, Any]]) -> None:
    for name in {name for row in rows for name in row}:
        try:
            check_text(name)
        except ValueError as error:
            raise ValueError(f"the name of a column has {error}") from None


def _parquet(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file; class labels are names."""
    import pyarrow.parquet

    try:
        _csv_rows.check_column_names(pyarrow.parquet.read_schema(path).names)
        found = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ValueError(one_line(error)) from error
    rows = _rows(found)
    for column, names in _class_names(found.schema).items():
        for number, row in enumerate(rows, 1):
            row[column] = _class_name(row.get(column), names, f"row {number}: '{column}'")
    return rows


def _class_name(value: Any, names: Sequence[str], where: str) -> Any:
    """Return the name of a class label; `datasets` writes -1 for a missing label."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value >= len(names) or value < -1:
        raise ValueError(f"{where} is {value}, and the file has names for 0 to {len(names) - 1}: {', '.join(names)}")
    return None if value == -1 else names[value]


def _rows(found: Any) -> list[dict[str, Any]]:
    """Return the rows of an Arrow table. Raises `ValueError` with the row of a text that is not UTF-8."""
    import numpy as np
    import pyarrow as pa

    short = [
        name for name, kind in zip(found.schema.names, found.schema.types, strict=True) if str(kind) in NUMBER_TYPES
    ]
    try:
        rows: list[dict[str, Any]] = found.to_pylist()
    except (UnicodeDecodeError, pa.ArrowException) as error:
        raise ValueError(f"{_undecodable(found)}{one_line(error)}") from error
    for name in short:
        for row in rows:
            if row[name] is not None:
                row[name] = float(str(np.float32(row[name])))
    return rows


def _undecodable(found: Any) -> str:
    for number in range(found.num_rows):
        try:
            found.slice(number, 1).to_pylist()
        except ValueError:
            return f"row {number + 1}: "
    return ""


def _by_delimiter(delimiter: str) -> Callable[[str, Format], list[dict[str, Any]]]:
    def read(text: str, form: Format) -> list[dict[str, Any]]:
        return [dict(row) for row in _csv_rows.delimited_rows(text, delimiter, form.quotes)]

    return read


def _json(text: str, _form: Format) -> list[dict[str, Any]]:
    """Parse the objects of a list one by one, so that an error names its row."""
    rows: list[Any] = []
    place = _past_blanks(text, 0)
    if text[place : place + 1] != "[":
        raise ValueError("it is no list of objects; if it has one on each line, the ending is .jsonl")
    place, end = _past_blanks(text, place + 1), "]"
    while text[place : place + 1] != end:
        try:
            row, place = DECODER.raw_decode(text, place)
        except ValueError as error:
            raise ValueError(f"row {len(rows) + 1}: {error}") from error
        rows.append(row)
        place = _past_blanks(text, place)
        if text[place : place + 1] not in (",", "]"):
            raise ValueError(f"row {len(rows)}: neither a comma nor ] after it")
        if text[place] == ",":
            place = _past_blanks(text, place + 1)
            if text[place : place + 1] == "]":
                raise ValueError(f"row {len(rows) + 1}: a comma and no object after it")
    if text[place + 1 :].strip():
        raise ValueError(f"row {len(rows)}: the list ends after it, and there is more text")
    return _objects(rows)


def _past_blanks(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\n", "\r", "\t"):
        place += 1
    return place


def _json_lines(text: str, _form: Format) -> list[dict[str, Any]]:
    rows = []
    # `splitlines` would also split at characters that JSON strings contain unescaped, such as U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rows += [DECODER.decode(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return _objects(rows)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _csv_rows.check_column_names([name for name, _ in pairs])
    return found


def _objects(rows: Sequence[Any]) -> list[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is no object with named values")
    return list(rows)


DECODER = json.JSONDecoder(object_pairs_hook=_once)
PARQUET = ".parquet"
READERS: dict[str, Callable[[str, Format], list[dict[str, Any]]]] = {
    ".csv": _by_delimiter(","),
    ".tsv": _by_delimiter("\t"),
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
