"""Index of a store in the cache folder, so that a command reads only the runs that have changed since the last one.

One SQLite file per store. An entry is valid while the size, modification time (ns) and inode of the files of its run
are unchanged. If the index is missing, damaged or written by other code, the results are read again.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.core.cache_folder import cache_directory
from peftbench.core.registry import UserError
from peftbench.results.digests import RESULT

BATCH = 500
"""Number of results between two writes to the index, and in one reading of it."""
WAIT = 5.0
"""Seconds to wait for another process that writes to the index."""
IN_MEMORY = ":memory:"
TABLES = """
create table if not exists entries
    (place text primary key, result text, folder text, others text, id text, status text, error text);
create table if not exists contents (place text primary key, row text, row_scores blob, curve blob);
"""
ROWS = "select place, row, row_scores from contents where place in (select value from json_each(?))"
CURVES = "select place, curve from contents where place in (select value from json_each(?))"
SHAPED_BY = (
    "core/costs.py",
    "core/spec.py",
    "results/read_cache.py",
    "results/schema.py",
    "results/store.py",
    "results/runs_table.py",
)
"""Source files that determine the content of the index."""


class DamagedIndexError(UserError):
    """The index is damaged. Its file was removed, so a new index can be built."""


class IndexEntry(NamedTuple):
    """A result that was read and is undamaged.

    `place` is its folder, relative to the store; `result` and `folder` are the identities of the result file and of its
    folder; `others` is a JSON list of the names and identities of the other files.
    """

    place: str
    result: str
    folder: str
    others: str
    id: str
    status: str
    error: str | None


class Content(NamedTuple):
    """The parts of a result that tables need: its row by column, its `row_scores`, and the points of its curve."""

    row: dict[str, Any]
    row_scores: str | None
    curve: list[dict[str, Any]]


def file_identity(path: str) -> str:
    """Return size, modification time (ns) and inode of a file or folder. Raises `OSError`."""
    status = os.stat(path)  # noqa: PTH116 - many thousands of files
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def identities(folder: str, names: Iterable[str]) -> str:
    """Return a JSON list of the names and identities of files. Raises `OSError`."""
    return json.dumps([[name, file_identity(f"{folder}/{name}")] for name in names])


def unchanged(entry: IndexEntry, folder: str, *, all_files: bool) -> bool:
    """Return True if the result file and the folder of a run are unchanged; with `all_files`, check each file."""
    try:
        if file_identity(f"{folder}/{RESULT}") != entry.result:
            return False
        if not all_files:
            return file_identity(folder) == entry.folder
        return all(file_identity(f"{folder}/{name}") == known for name, known in json.loads(entry.others))
    except OSError:
        return False


class Index:
    """The index of a store. `entries` maps places to entries."""

    def __init__(self, root: Path) -> None:
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        self.path = cache_directory() / "stores" / f"{name}-{_code_digest()}.sqlite"
        self._database = _opened(self.path)
        for other in self.path.parent.glob(f"{name}-*"):
            if not other.name.startswith(self.path.name):
                # An index of other code, or its journal.
                with contextlib.suppress(OSError):
                    other.unlink()
        self._added: dict[str, tuple[IndexEntry, Content]] = {}
        try:
            self.entries = self._all()
        except sqlite3.DatabaseError:
            self._database = _with_tables(IN_MEMORY)
            self.entries = {}

    def _all(self) -> dict[str, IndexEntry]:
        return {row[0]: IndexEntry._make(row) for row in self._database.execute("select * from entries")}

    def add(self, entry: IndexEntry, content: Content) -> None:
        """Add the entry and the content of a run."""
        self.entries[entry.place] = entry
        self._added[entry.place] = (entry, content)
        if len(self._added) >= BATCH:
            self.write()

    def keep_only(self, places: set[str]) -> None:
        """Remove the runs that are not at these places, and write the added ones."""
        gone = self.entries.keys() - places
        for place in gone:
            del self.entries[place]
        self.write(gone)

    def write(self, gone: Iterable[str] = ()) -> None:
        """Write the added entries. If the file cannot be written, the index is moved to memory."""
        lost = [(place,) for place in gone]
        if not self._added and not lost:
            return
        try:
            self._write(lost)
        except sqlite3.Error:
            in_memory = _with_tables(IN_MEMORY)
            with contextlib.suppress(sqlite3.Error):
                self._database.backup(in_memory)
            self._database = in_memory
            self._write(lost)
        self._added.clear()

    def _write(self, lost: list[tuple[str]]) -> None:
        with self._database as changes:
            changes.executemany("delete from entries where place = ?", lost)
            changes.executemany("delete from contents where place = ?", lost)
            changes.executemany(
                "insert or replace into entries values (?, ?, ?, ?, ?, ?, ?)",
                [entry for entry, _ in self._added.values()],
            )
            changes.executemany(
                "insert or replace into contents values (?, ?, ?, ?)",
                [(place, *_packed(content)) for place, (_, content) in self._added.items()],
            )

    def rows(self, entries: Iterable[IndexEntry]) -> list[tuple[dict[str, Any], str | None]]:
        """Return the row and the row scores of each of these runs. Raises `DamagedIndexError`."""
        with self._damage_found():
            return [
                (json.loads(row), None if scores is None else zlib.decompress(scores).decode())
                for row, scores in self._contents(ROWS, entries)
            ]

    def curves(self, entries: Iterable[IndexEntry]) -> list[list[dict[str, Any]]]:
        """Return the points of the curve of each of these runs. Raises `DamagedIndexError`."""
        with self._damage_found():
            return [json.loads(zlib.decompress(curve)) for (curve,) in self._contents(CURVES, entries)]

    def _contents(self, question: str, entries: Iterable[IndexEntry]) -> Iterator[tuple[Any, ...]]:
        self.write()
        places = [entry.place for entry in entries]
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            found = {place: record for place, *record in self._database.execute(question, (json.dumps(batch),))}
            if gone := [place for place in batch if place not in found]:
                raise ValueError(f"{gone[0]} is missing")
            yield from (tuple(found[place]) for place in batch)

    @contextlib.contextmanager
    def _damage_found(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, TypeError, ValueError, zlib.error) as error:
            self._database.close()
            self.path.unlink(missing_ok=True)
            raise DamagedIndexError(
                f"{self.path}: {error}. The damaged index was removed: run the command again"
            ) from error


def _packed(content: Content) -> tuple[str, bytes | None, bytes]:
    scores = None if content.row_scores is None else zlib.compress(content.row_scores.encode())
    return json.dumps(content.row), scores, zlib.compress(json.dumps(content.curve).encode())


def _opened(path: Path) -> sqlite3.Connection:
    """Open the database in a file, recreated if it is damaged; a database in memory if the file cannot be used."""
    for _ in range(2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return _with_tables(str(path))
        except (OSError, sqlite3.OperationalError):
            break
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                path.unlink()
    return _with_tables(IN_MEMORY)


def _with_tables(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=WAIT, check_same_thread=False)
    database.executescript(TABLES)
    return database


@cache
def _code_digest() -> str:
    package = Path(__file__).parents[1]
    content = b"".join((package / name).read_bytes() for name in SHAPED_BY)
    return hashlib.sha256(content).hexdigest()[:16]
