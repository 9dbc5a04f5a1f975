"""Results on disk: what is there, what is missing, one table of all.

    <store>/<machine class>/<model>/<method>/<task>/n<size>-s<seed>-<id>/
        spec.json  trace.jsonl  predictions.jsonl.gz  error.txt  output.txt  result.json  adapter/ (if kept)
    <store>/.work/<id>-<owner>/    a run under way, or what a process that died left of it
    <store>/.claims/<id>           which process is doing a run (`peftbench.results.run_claims`)

A run is written in its work folder, which is then renamed to its place: a folder with `result.json` is whole, and its
existence means done. It has digests of all files of the run (`peftbench.results.digests`), which are checked when
results are read. Plain files diff, merge and survive.
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
"""How the name of a result's folder ends while its successor takes its place."""
FORGOTTEN = 86400.0
"""Seconds after which a work folder is removed that nobody has written to, where its owner cannot be looked up."""
Stamps = frozenset[tuple[str, int, int]]
"""Which undamaged results there are of a run: path of the result file, inode, time of writing."""
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: dict}
"""From the shape of a schema number to that of the next; applied in order to older results."""
ROUNDING = 1e-5
"""By how much the mean of row scores may differ from the score, relative to the largest of them."""
ORDER = ("model", "task", "method", "method_arguments", "size", "seed", "id")
"""Columns by which the table of runs is sorted."""
DEPTH = 5
"""Folders from the store to that of a run: machine class, model, method, task, run."""
NAME_LENGTH = 100
"""Many arguments make a long name, and file systems take 255 bytes; the id tells runs apart."""


Read = TypeVar("Read")


class Store:
    """A folder of results. Reading never writes. Of a run that several processes do, the first to finish is kept.

    `owner`: the process in whose name runs are written; by default this one. `snapshot`: look at the files once, for
    commands that write no results. `result_files_only`: of runs that have not changed since they were read, look at
    the result file and the folder alone, for commands that only tell what there is: damage within another file is
    then left for the next command to find.
    """

    def __init__(
        self, root: Path, owner: Owner | None = None, *, snapshot: bool = False, result_files_only: bool = False
    ) -> None:
        self.root, self.snapshot, self.result_files_only = Path(root), snapshot, result_files_only
        self._index: Index | None = None
        self._kept: dict[str, IndexEntry] | None = None
        self.damaged: dict[Path, str] = {}
        """Files that are not what was written, and why, found by the last look at the store. Their runs count as
        missing.
        """
        self._owner = owner
        self._before: dict[Path, Stamps] = {}
        """By work folder: the results of its run that were there when it was begun, which it replaces."""

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
        """Make the folder and prove that it can be written. Raises `UserError`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{self.owner.token}"
            probe.write_text("x" * 4096)
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"store {self.root}: cannot be written: {error.strerror}. Give another with --store DIR or make room"
            ) from error

    def folder(self, spec: RunSpec, machine_class: str | None = None) -> Path:
        """Where the result of a run is on a machine, by default on this one."""
        names = (spec.model_name, str(spec.method), str(spec.task))
        place = Path(
            machine_class or provenance.machine_class(), *(provenance.slug(name)[:NAME_LENGTH] for name in names)
        )
        return self.root / place / _leaf(spec)

    def work(self, spec: RunSpec) -> Path:
        """Where this owner writes a run until it is done."""
        return self.root / ".work" / f"{spec.id}-{self.owner.token}"

    def begin(self, spec: RunSpec, keep: bool = False) -> Path:
        """An empty work folder for a run, with its `spec.json`; with `keep`, what this owner has written stays."""
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
        """Write predictions, then the result, and rename the work folder to its place, which is returned.

        What was there when the run was begun is replaced, and stays until the new result is there; a corrupt result is
        kept beside, as `<folder>.<number>.corrupt`. A result that came meanwhile stays, and this one is removed.
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
        """Rename a finished work folder to its place; false if something came between."""
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
        """Remove what this owner left of an unfinished run."""
        shutil.rmtree(self.work(spec), ignore_errors=True)

    def clean(self) -> None:
        """Remove what processes that have died left of their runs."""
        for folder in self.root.glob(".work/*"):
            owner = read_owner(folder / OWNER)
            with contextlib.suppress(OSError):
                forgotten = time.time() - folder.stat().st_mtime > FORGOTTEN
                if owner.dead if owner and owner.here else forgotten:
                    shutil.rmtree(folder, ignore_errors=True)

    def stamps(self, spec: RunSpec) -> Stamps:
        """The undamaged results of a run, of all machine classes."""
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
        """Every undamaged result by run id. Of several machine classes, the first that ended well."""
        if self._kept is not None:
            return self._kept
        self.damaged = {}
        found: dict[str, IndexEntry] = {}
        for entry in self.look():
            if isinstance(entry, DamagedError):
                self.damaged[entry.path] = entry.why
                continue
            held = found.get(entry.id)
            if held is None or (held.status != "ok" and entry.status == "ok"):
                found[entry.id] = entry
        if self.snapshot:
            self._kept = found
        return found

    def look(self) -> Iterator[IndexEntry | DamagedError]:
        """Every result in the order of the paths, or what is wrong with it or another file of its folder.

        Only results that have changed since an earlier look are read; see `peftbench.results.read_cache`.
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
        """Every undamaged result with its folder, by run id. A result is read when it is first asked for."""
        return ReadWhenAsked(self.entries(), self._read)

    def run_results(self, entries: Mapping[str, IndexEntry] | None = None) -> "Mapping[str, RunResult]":
        """The results of these entries, by default of all, by run id. A result is read when it is first asked for."""
        return ReadWhenAsked(self.entries() if entries is None else entries, lambda entry: self._read(entry)[0])

    def _read(self, entry: IndexEntry) -> tuple[RunResult, Path]:
        """The result of an entry, and its folder. Raises `UserError` if it has been damaged or removed since."""
        folder = self.root / entry.place
        try:
            return _validated(folder / RESULT, unseal(folder / RESULT, SCHEMA)[0]), folder
        except DamagedError as error:
            raise UserError(f"{error}: it changed while it was read; give the command again") from error

    def scan(self) -> Iterator[tuple[Path, RunResult | DamagedError]]:
        """The path of every result file, with the result or what is wrong with it or another file of its folder.

        Every byte of every file is read.
        """
        for path in self.paths():
            try:
                yield path, read_result(path)
            except DamagedError as error:
                yield path, error

    def paths(self) -> list[Path]:
        """All result files, except damaged ones that were put aside."""
        paths = (self.root / place / RESULT for place in self._places())
        return [path for path in paths if path.exists()]

    def _places(self) -> list[str]:
        """Folders where results are, relative to the store, in order; without those that were put aside."""
        found = [f"{name}/" for name in _folders(str(self.root)) if not name.startswith(".")]
        for _ in range(DEPTH - 1):
            found = [f"{place}{name}/" for place in found for name in _folders(f"{self.root}/{place}")]
        return [place[:-1] for place in found if not place.endswith(".corrupt/")]

    def rescore(self, result: RunResult, folder: Path, scored: Mapping[str, Any]) -> None:
        """Put other scores into the result of a run: fields of `RunResult` that scoring its answers gives."""
        _write_result(folder, result.model_copy(update=dict(scored)))

    def missing(self, specs: Iterable[RunSpec], retry: Sequence[str] = ()) -> list[RunSpec]:
        """The specs without a result; with `retry`, also those whose result has one of these statuses."""
        done = {id_ for id_, entry in self.entries().items() if entry.status not in retry}
        return [spec for spec in specs if spec.id not in done]

    def predictions(self, id_: str) -> list[dict[str, Any]]:
        """The answers of a run: prediction and references, one a test row."""
        return read_predictions(self.find(id_)[1])

    def find(self, prefix: str, results: Mapping[str, tuple[RunResult, Path]] | None = None) -> tuple[RunResult, Path]:
        """The result whose id starts with `prefix`, in the store or among `results` that have been read from it.

        Raises `UserError` if there is none or more than one.
        """
        results = self.results() if results is None else results
        found = [id_ for id_ in results if id_.startswith(prefix)]
        if not found:
            for path, why in self.damaged.items():
                if (id_ := self._id_of(path)).startswith(prefix):
                    raise UserError(f"{path}: {why}. Run {id_} counts as missing: give the command of its grid again")
        if len(found) != 1:
            what = "no run" if not found else f"{len(found)} runs"
            hint = ", ".join(found[:3]) + ", ..." * (len(found) > 3) if found else _nearest(prefix, list(results))
            raise UserError(f"store {self.root}: {what} with an id that starts with '{prefix}': {hint}")
        return results[found[0]]

    def _id_of(self, path: Path) -> str:
        """The id of the run that a file belongs to, by the name of its folder."""
        return path.relative_to(self.root).parts[4].rpartition("-")[2]

    def table(self, ids: Iterable[str] | None = None) -> "pd.DataFrame":
        """One row per run: what was asked, status, score, every cost. All runs, or those of `ids`."""
        import pandas as pd

        rows = [
            row | {"row_scores": None if scores is None else row_scores(scores)}
            for row, scores in self._from_index(Index.rows, self._chosen(ids))
        ]
        return pd.DataFrame(rows, columns=COLUMNS).sort_values(list(ORDER), ignore_index=True)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table of all runs, in its order, without `row_scores`. Quicker than `table`."""
        rows = (row for row, _ in self._from_index(Index.rows, self._chosen(None)))
        return sorted(rows, key=lambda row: [(isinstance(row[name], str), row[name]) for name in ORDER])

    def curves(self, ids: Iterable[str] | None = None) -> "pd.DataFrame":
        """Learning curves: one row per validation, with the id of its run."""
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
        """What the index holds of these runs, which were found by a look. A damaged index is made anew."""
        assert self._index is not None
        try:
            return read(self._index, entries)
        except DamagedIndexError:
            self._index = Index(self.root)
        for _ in self.look():
            pass
        return read(self._index, entries)


class ReadWhenAsked(Mapping[str, Read]):
    """What is read of results, by run id: each when it is first asked for."""

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
    """Names of the folders in a folder, in order; none if it is not there. Raises `UserError` if it cannot be read."""
    try:
        with os.scandir(path) as found:
            return sorted(one.name for one in found if one.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; its runs are not known to be missing") from error


def _indexed(root: Path, place: str) -> tuple[IndexEntry, Content]:
    """Read a result and check the files of its run. Raises `DamagedError`."""
    folder = f"{root}/{place}"
    path = root / place / RESULT
    if not place.isprintable():
        raise DamagedError(path, "the name of its folder is not one that peftbench writes")
    try:
        # Before they are read: what changes meanwhile is read again.
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
    """A result of any schema up to today's, checked against its digest; the other files of its run against theirs.

    Raises `DamagedError` for a file that is no result, or is not what was written.
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
    """Raises `ValueError` for a result that contradicts itself.

    Its id is that of its spec; scores are finite and within the bounds of their metric; the main score is the mean of
    the scores of rows.
    """
    if result.id != result.spec.id:
        raise ValueError(f"its id is {result.id}, and that of its content is {result.spec.id}")
    for name, score in result.scores.items():
        lowest, highest = bounds(name)
        if score.value is not None and not (math.isfinite(score.value) and lowest <= score.value <= highest):
            raise ValueError(f"its {name} is {score.value}")
    main = next(iter(result.scores.values()), None)
    if result.row_scores and main is not None and main.value is not None:
        rows = [row for row in map(float, result.row_scores.split()) if not math.isnan(row)]
        # Written with six digits.
        if not rows or abs(sum(rows) / len(rows) - main.value) > ROUNDING * max(1.0, *map(abs, rows)):
            raise ValueError(f"its score is {main.value}, and that of its rows is another")


def _write_result(folder: Path, result: RunResult) -> None:
    write_atomically(folder / RESULT, seal(json.loads(result.model_dump_json(exclude_none=True)), folder))


def write_predictions(folder: Path, predictions: Sequence[dict[str, Any]]) -> None:
    """Write the answers of the run in a folder, one line a test row."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    # No time stamp: the same predictions are the same file.
    write_atomically(folder / "predictions.jsonl.gz", gzip.compress(lines.encode(), mtime=0))


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The answers of the run in a folder, one a test row: prediction, references and what else metrics need.

    Raises `DamagedError`.
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
    return f"did you mean '{cut[near[0]]}'?" if near else "`peftbench list runs` has those there are"
