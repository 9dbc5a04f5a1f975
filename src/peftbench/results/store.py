"""The store of results on disk: reading, writing, missing runs, and the table of all runs.

    <store>/<machine class>/<model>/<method>/<task>/n<size>-s<seed>-<id>/
        spec.json  trace.jsonl  predictions.jsonl.gz  error.txt  output.txt  result.json  adapter/ (if kept)
    <store>/.work/<id>-<owner>/    a run in progress, or the remains of one whose process died
    <store>/.claims/<id>           which process executes a run (`peftbench.results.run_claims`)

A run is written to its work folder, which is then renamed to its final place: a folder with `result.json` is complete.
`result.json` contains digests of all files of the run (`peftbench.results.digests`), which are checked when results are
read.
"""

import contextlib
import difflib
import errno
import gzip
import io
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from peftbench.core import provenance
from peftbench.core.files import parse_json, read_bytes, sync, write_atomically
from peftbench.core.registry import UserError
from peftbench.core.spec import SCHEMA, RunResult, RunSpec
from peftbench.metrics import bounds
from peftbench.results.digests import RESULT, DamagedError, check_files, seal, unseal
from peftbench.results.read_cache import (
    Content,
    DamagedIndexError,
    Index,
    IndexEntry,
    file_identity,
    identities,
    unchanged,
)
from peftbench.results.run_claims import Owner, myself, read_owner, write_owner
from peftbench.results.runs_table import row_scores, table_row
from peftbench.results.schema import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

OWNER = "owner.json"
OLD = ".old"
"""Suffix of a result's folder while it is being replaced."""
FORGOTTEN = 86400.0
"""Seconds without a write after which a work folder is removed if the state of its owner is unknown."""
Stamps = frozenset[tuple[str, int, int]]
"""The undamaged results of a run: path of the result file, inode, modification time in ns."""
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: dict}
"""Functions that convert a result from one schema number to the next, applied in order to older results."""
ROUNDING = 1e-5
"""Tolerance between the mean of the row scores and the score, relative to the largest row score."""
ORDER = ("model", "task", "method", "method_arguments", "size", "seed", "id")
"""Columns by which the table of runs is sorted."""
DEPTH = 5
"""Depth of a run's folder below the store: machine class, model, method, task, run."""
NAME_LENGTH = 100
"""Maximum length of a folder name. Many arguments make a long name, file systems allow 255 bytes, and the id is unique.
"""


Read = TypeVar("Read")


class Store:
    """A folder of results. Reading never writes to it. If several processes execute a run, the first result is kept.

    `owner` is the process that writes runs, by default this one. With `snapshot`, the files are examined only once; use
    it in commands that write no results. With `result_files_only`, only the result file and the folder of a run are
    checked for changes; use it in commands that list results, since it misses damage to other files.
    """

    def __init__(
        self, root: Path, owner: Owner | None = None, *, snapshot: bool = False, result_files_only: bool = False
    ) -> None:
        self.root, self.snapshot, self.result_files_only = Path(root), snapshot, result_files_only
        self._index: Index | None = None
        self._kept: dict[str, IndexEntry] | None = None
        self.damaged: dict[Path, str] = {}
        """Damaged files with the reason, from the last scan of the store. Their runs count as missing."""
        self._owner = owner
        self._before: dict[Path, Stamps] = {}
        """Work folder to the results that existed when its run began, which the run replaces."""

    @property
    def owner(self) -> Owner:
        self._owner = self._owner or myself()
        return self._owner

    def existing(self) -> Self:
        """Return the store. Raises `UserError` if there is no such folder."""
        if not self.root.is_dir():
            why = "not a folder" if self.root.exists() else "no such folder"
            raise UserError(f"store {self.root}: {why}; give one with --store DIR")
        return self

    def open(self) -> None:
        """Create the folder and check that it is writable. Raises `UserError`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{self.owner.token}"
            probe.write_text("x" * 4096)
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"store {self.root}: cannot be written: {error.strerror}. Choose another --store or free disk space"
            ) from error

    def folder(self, spec: RunSpec, machine_class: str | None = None) -> Path:
        """Return the folder of a run's result for a machine class, by default this machine's."""
        names = (spec.model_name, str(spec.method), str(spec.task))
        place = Path(
            machine_class or provenance.machine_class(), *(provenance.slug(name)[:NAME_LENGTH] for name in names)
        )
        return self.root / place / _leaf(spec)

    def work(self, spec: RunSpec) -> Path:
        """Return the folder in which this owner writes an unfinished run."""
        return self.root / ".work" / f"{spec.id}-{self.owner.token}"

    def begin(self, spec: RunSpec, keep: bool = False) -> Path:
        """Create an empty work folder for a run with its `spec.json`; with `keep`, existing files stay."""
        folder = self.work(spec)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_owner(folder / OWNER, self.owner)
        (folder / "spec.json").write_text(spec.model_dump_json(indent=1, exclude_none=True) + "\n")
        self._before[folder] = self.stamps(spec)
        return folder

    def finish(
        self,
        folder: Path,
        result: RunResult,
        predictions: Sequence[dict[str, Any]],
        machine_class: str | None = None,
    ) -> Path:
        """Write predictions and result, rename the work folder to its final place, and return that folder.

        A result that existed when the run began is replaced, and stays until the new one is complete. A corrupt result
        is renamed to `<folder>.<number>.corrupt`. If another process has written a result meanwhile, this one is
        removed.
        """
        target = self.folder(result.spec, machine_class)
        write_predictions(folder, predictions)
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in folder.rglob("*"):
            sync(path)
        (folder / OWNER).unlink(missing_ok=True)
        _write_result(folder, result)
        before = self._before.pop(folder, frozenset())
        while not self._publish(folder, target, before):
            pass
        return target

    def _publish(self, folder: Path, target: Path, before: Stamps) -> bool:
        """Rename a finished work folder to its place; return False if another process interfered."""
        old = target.with_name(target.name + OLD)
        if target.exists():
            there = self._stamps([target / RESULT])
            if there - before:
                shutil.rmtree(folder, ignore_errors=True)
                return True
            if there:
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
            elif (target / RESULT).exists():
                kept = len(list(target.parent.glob(f"{target.name}.*.corrupt")))
                target.rename(target.with_name(f"{target.name}.{kept + 1}.corrupt"))
            else:
                left = folder.with_name(f"{folder.name}.left")
                target.rename(left)
                shutil.rmtree(left, ignore_errors=True)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
        return True

    def abandon(self, spec: RunSpec) -> None:
        """Remove the work folder of this owner's unfinished run."""
        shutil.rmtree(self.work(spec), ignore_errors=True)

    def clean(self) -> None:
        """Remove the work folders of dead processes."""
        for folder in self.root.glob(".work/*"):
            owner = read_owner(folder / OWNER)
            with contextlib.suppress(OSError):
                forgotten = time.time() - folder.stat().st_mtime > FORGOTTEN
                if owner.dead if owner and owner.here else forgotten:
                    shutil.rmtree(folder, ignore_errors=True)

    def stamps(self, spec: RunSpec) -> Stamps:
        """Return the undamaged results of a run in all machine classes."""
        names = (provenance.slug(name)[:NAME_LENGTH] for name in (spec.model_name, str(spec.method), str(spec.task)))
        return self._stamps(self.root.glob("/".join(["*", *names, _leaf(spec), RESULT])))

    def _stamps(self, files: Iterable[Path]) -> Stamps:
        found = set()
        for path in files:
            with contextlib.suppress(OSError, DamagedError):
                stat = path.stat()
                read_result(path)
                found.add((str(path), stat.st_ino, stat.st_mtime_ns))
        return frozenset(found)

    def entries(self) -> dict[str, IndexEntry]:
        """Return the undamaged results by run id; of several machine classes, preferably one with status `ok`."""
        if self._kept is not None:
            return self._kept
        self.damaged = {}
        found: dict[str, IndexEntry] = {}
        for entry in self.look():
            if isinstance(entry, DamagedError):
                self.damaged[entry.path] = entry.why
                continue
            other = found.get(entry.id)
            if other is None or (other.status != "ok" and entry.status == "ok"):
                found[entry.id] = entry
        if self.snapshot:
            self._kept = found
        return found

    def look(self) -> Iterator[IndexEntry | DamagedError]:
        """Yield each result in the order of the paths, or the error if it or another file of its folder is damaged.

        Only results that have changed since they were indexed are read; see `peftbench.results.read_cache`.
        """
        index = self._index = self._index or Index(self.root)
        found = set()
        for place in self._places():
            entry = index.entries.get(place)
            if entry is None or not unchanged(entry, f"{self.root}/{place}", all_files=not self.result_files_only):
                if not (self.root / place / RESULT).exists():
                    continue
                try:
                    entry, content = _indexed(self.root, place)
                except DamagedError as error:
                    yield error
                    continue
                index.add(entry, content)
            found.add(place)
            yield entry
        index.keep_only(found)

    def results(self) -> "Mapping[str, tuple[RunResult, Path]]":
        """Return the undamaged results with their folders, by run id. Each is read on first access."""
        return ReadWhenAsked(self.entries(), self._read)

    def run_results(self, entries: Mapping[str, IndexEntry] | None = None) -> "Mapping[str, RunResult]":
        """Return the results of these entries, by default all, by run id. Each is read on first access."""
        return ReadWhenAsked(self.entries() if entries is None else entries, lambda entry: self._read(entry)[0])

    def _read(self, entry: IndexEntry) -> tuple[RunResult, Path]:
        """Return the result of an entry and its folder. Raises `UserError` if it was damaged or removed meanwhile."""
        folder = self.root / entry.place
        try:
            return _validated(folder / RESULT, unseal(folder / RESULT, SCHEMA)[0]), folder
        except DamagedError as error:
            raise UserError(f"{error}: it changed while it was read; run the command again") from error

    def scan(self) -> Iterator[tuple[Path, RunResult | DamagedError]]:
        """Yield the path of each result file, with the result, or the error if a file of its folder is damaged.

        All files are read completely.
        """
        for path in self.paths():
            try:
                yield path, read_result(path)
            except DamagedError as error:
                yield path, error

    def paths(self) -> list[Path]:
        """Return all result files, except damaged ones that were renamed."""
        paths = (self.root / place / RESULT for place in self._places())
        return [path for path in paths if path.exists()]

    def _places(self) -> list[str]:
        """Return the folders of runs, relative to the store and sorted, without renamed damaged ones."""
        places = [f"{name}/" for name in _folders(str(self.root)) if not name.startswith(".")]
        for _ in range(DEPTH - 1):
            places = [f"{place}{name}/" for place in places for name in _folders(f"{self.root}/{place}")]
        return [place[:-1] for place in places if not place.endswith(".corrupt/")]

    def rescore(self, result: RunResult, folder: Path, scored: Mapping[str, Any]) -> None:
        """Update the result of a run with `scored`, the fields of `RunResult` that scoring its answers gives."""
        _write_result(folder, result.model_copy(update=dict(scored)))

    def missing(self, specs: Iterable[RunSpec], retry: Sequence[str] = ()) -> list[RunSpec]:
        """Return the specs without a result; with `retry`, also those whose result has one of these statuses."""
        done = {id_ for id_, entry in self.entries().items() if entry.status not in retry}
        return [spec for spec in specs if spec.id not in done]

    def predictions(self, id_: str) -> list[dict[str, Any]]:
        """Return the answers of a run, one mapping per test row. Raises `UserError` and `DamagedError`."""
        return read_predictions(self.find(id_)[1])

    def find(self, prefix: str, results: Mapping[str, tuple[RunResult, Path]] | None = None) -> tuple[RunResult, Path]:
        """Return the result whose id starts with `prefix` and its folder, from the store or from given `results`.

        Raises `UserError` if there is none or more than one.
        """
        results = self.results() if results is None else results
        found = [id_ for id_ in results if id_.startswith(prefix)]
        if not found:
            for path, why in self.damaged.items():
                if (id_ := self._id_of(path)).startswith(prefix):
                    raise UserError(f"{path}: {why}. Run {id_} counts as missing: run its grid again")
        if len(found) != 1:
            what = "no run" if not found else f"{len(found)} runs"
            hint = ", ".join(found[:3]) + ", ..." * (len(found) > 3) if found else _nearest(prefix, list(results))
            raise UserError(f"store {self.root}: {what} with an id that starts with '{prefix}': {hint}")
        return results[found[0]]

    def _id_of(self, path: Path) -> str:
        """Return the id of the run that a file belongs to, from the name of its folder."""
        return path.relative_to(self.root).parts[4].rpartition("-")[2]

    def table(self, ids: Iterable[str] | None = None) -> "pd.DataFrame":
        """Return a table with one row per run (`peftbench.results.schema`), by default of all runs."""
        import pandas as pd

        rows = [
            row | {"row_scores": None if scores is None else row_scores(scores)}
            for row, scores in self._from_index(Index.rows, self._chosen(ids))
        ]
        return pd.DataFrame(rows, columns=COLUMNS).sort_values(list(ORDER), ignore_index=True)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table of all runs without `row_scores`, in the same order. Faster than `table`."""
        rows = (row for row, _ in self._from_index(Index.rows, self._chosen(None)))
        return sorted(rows, key=lambda row: [(isinstance(row[name], str), row[name]) for name in ORDER])

    def curves(self, ids: Iterable[str] | None = None) -> "pd.DataFrame":
        """Return the learning curves: one row per validation, with the id of its run."""
        import pandas as pd

        chosen = self._chosen(ids)
        curves = self._from_index(Index.curves, chosen)
        points = [{"id": entry.id, **point} for entry, curve in zip(chosen, curves, strict=True) for point in curve]
        return pd.DataFrame(points, columns=["id", "step", "tokens", "seconds", "train_loss", "validation_loss"])

    def _chosen(self, ids: Iterable[str] | None) -> list[IndexEntry]:
        entries = self.entries()
        wanted = entries.keys() if ids is None else set(ids)
        return [entry for id_, entry in entries.items() if id_ in wanted]

    def _from_index(
        self, read: "Callable[[Index, list[IndexEntry]], list[Read]]", entries: list[IndexEntry]
    ) -> "list[Read]":
        """Read the index entries of these runs; rebuild the index if it is damaged. Call `look` first."""
        assert self._index is not None
        try:
            return read(self._index, entries)
        except DamagedIndexError:
            self._index = Index(self.root)
        for _ in self.look():
            pass
        return read(self._index, entries)


class ReadWhenAsked(Mapping[str, Read]):
    """A mapping by run id whose values are read on first access."""

    def __init__(self, entries: Mapping[str, IndexEntry], read: Callable[[IndexEntry], Read]) -> None:
        self._entries, self._read = entries, read
        self._found: dict[str, Read] = {}

    def __getitem__(self, id_: str) -> Read:
        if id_ not in self._found:
            self._found[id_] = self._read(self._entries[id_])
        return self._found[id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._entries


def _folders(path: str) -> list[str]:
    """Return the sorted names of the folders in a folder, if it exists. Raises `UserError` if it is unreadable."""
    try:
        with os.scandir(path) as found:
            return sorted(one.name for one in found if one.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; it is unknown which of its runs are missing"
        ) from error


def _indexed(root: Path, place: str) -> tuple[IndexEntry, Content]:
    """Read a result and check the files of its run. Raises `DamagedError`."""
    folder = f"{root}/{place}"
    path = root / place / RESULT
    if not place.isprintable():
        raise DamagedError(path, "peftbench does not write folders with this name")
    try:
        # Taken before reading, so that a file that changes meanwhile is read again.
        of_result, of_folder = file_identity(str(path)), file_identity(folder)
        content, files = unseal(path, SCHEMA)
        result = _validated(path, content)
        of_others = identities(folder, [name for name in files if Path(folder, name).exists()])
    except OSError as error:
        raise DamagedError(path, f"it cannot be read: {error.strerror}") from error
    check_files(path.parent, files)
    row = table_row(result, path.parent)
    del row["row_scores"]
    curve = [point.model_dump() for point in result.curve]
    entry = IndexEntry(place, of_result, of_folder, of_others, result.id, result.status, result.error)
    return entry, Content(row, result.row_scores, curve)


def read_result(path: Path) -> RunResult:
    """Read a result of any supported schema, and check the digests of all files of its run.

    Raises `DamagedError` if the file is not a result, or if a file has changed.
    """
    content, files = unseal(path, SCHEMA)
    result = _validated(path, content)
    check_files(path.parent, files)
    return result


def _validated(path: Path, content: dict[str, Any]) -> RunResult:
    try:
        for schema in range(content.get("result_schema", 1), SCHEMA):
            content = UPGRADES[schema](content) | {"result_schema": schema + 1}
        result = RunResult.model_validate(content)
        check_consistent(result)
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise DamagedError(path, f"it is not a result: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    return result


def check_consistent(result: RunResult) -> None:
    """Check the consistency of a result. Raises `ValueError` if it is inconsistent.

    The id must match the spec; scores must be finite and within the bounds of their metric; the main score must be the
    mean of the row scores.
    """
    if result.id != result.spec.id:
        raise ValueError(f"its id is {result.id}, but the id of its spec is {result.spec.id}")
    for name, score in result.scores.items():
        lowest, highest = bounds(name)
        if score.value is not None and not (math.isfinite(score.value) and lowest <= score.value <= highest):
            raise ValueError(f"its {name} is {score.value}")
    main = next(iter(result.scores.values()), None)
    if result.row_scores and main is not None and main.value is not None:
        rows = [row for row in map(float, result.row_scores.split()) if not math.isnan(row)]
        # Row scores are stored with six digits.
        if not rows or abs(sum(rows) / len(rows) - main.value) > ROUNDING * max(1.0, *map(abs, rows)):
            raise ValueError(f"its score is {main.value}, which is not the mean of its row scores")


def _write_result(folder: Path, result: RunResult) -> None:
    write_atomically(folder / RESULT, seal(json.loads(result.model_dump_json(exclude_none=True)), folder))


def write_predictions(folder: Path, predictions: Sequence[dict[str, Any]]) -> None:
    """Write the answers of a run to its folder, one line per test row."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    # No time stamp, so that equal predictions give equal files.
    write_atomically(folder / "predictions.jsonl.gz", gzip.compress(lines.encode(), mtime=0))


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """Return the answers of a run from its folder, per test row: prediction, references and details for metrics.

    Raises `DamagedError` if the file is missing or unreadable.
    """
    path = folder / "predictions.jsonl.gz"
    try:
        with gzip.open(io.BytesIO(read_bytes(path)), "rt", encoding="utf-8") as lines:
            return [parse_json(line) for line in lines]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DamagedError(path, f"it cannot be read: {error}") from error


def _leaf(spec: RunSpec) -> str:
    return f"n{spec.size}-s{spec.seed}-{spec.id}"


def _nearest(prefix: str, ids: list[str]) -> str:
    cut = {id_[: len(prefix)]: id_ for id_ in ids}
    near = difflib.get_close_matches(prefix, cut, n=1)
    return f"did you mean '{cut[near[0]]}'?" if near else "`peftbench list runs` lists all ids"
