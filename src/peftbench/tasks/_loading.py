"""Read the rows of a source: from files, a generator, a local mirror if it contains them, or the Hub.

A mirror is a folder with `<org>/<name>/<config or "default">/<split>.parquet` and an optional `MANIFEST.csv` whose
column `revision` is the Hub commit of each file.
"""

import csv
import errno
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peftbench.tasks import Example, Row, Source, Task
from peftbench.tasks._file_formats import DataError as DataError
from peftbench.tasks._file_formats import class_names, first_row, one_line, read_parquet, read_table
from peftbench.tasks._table_cell_parsing import check_text

WAITS = (1.0, 4.0)
"""Seconds before each retry. The Hub clients also retry, but not after every 429 and 5xx response."""

MANIFEST = "MANIFEST.csv"


class HubError(DataError):
    """A split cannot be loaded from the Hub.

    `what` names the split, `error` is the client's exception, `cause` its message, `way_out` the solution.
    """

    def __init__(self, source: Source, split: str, error: Exception) -> None:
        self.error = error
        self.what = f"data set {source_title(source)}, split '{split}'"
        self.cause = f"from the Hub: {type(error).__name__}: {one_line(error)}"
        self.way_out = _way_out(error)
        super().__init__(f"{self.what}: {self.cause}. To load it, {self.way_out} and repeat the command")


@dataclass(frozen=True)
class LoadedRows:
    """Rows of a split with their provenance.

    `origin` is `mirror`, `hub`, `file` or `generator`, `revision` is the Hub commit if known, `fingerprint` is 16
    hexadecimal digits of the SHA-256 of the rows. `names` has the names of integer class labels by column.
    """

    rows: list[dict[str, Any]]
    origin: str
    revision: str | None
    fingerprint: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_rows(source: Source, split: str, root: Path | None = None, count: int | None = None) -> LoadedRows:
    """Return all rows of a split: from the mirror at `root` (default: `$PEFTBENCH_DATA`) if it has them, else the Hub.

    Generators return `count` rows; file sources return the rows of the file. Class labels of the mirror and the Hub
    are integers. Raises `DataError`.
    """
    if source.files is not None:
        return _rows(read_table(Path(split), source.files), "file", None)
    if source.generator:
        if count is None:
            raise DataError(f"data set {source.name} is generated without end: request a number of rows")
        return _rows([dict(row) for row in source.generator(split, count)], "generator", None)
    folder, file = _mirror(root), split_path(source, split)
    if folder and (folder / file).is_file():
        line = manifest(folder).get(key(source, split), {})
        found = _rows(read_parquet(folder / file), "mirror", line.get("revision") or "mirror")
        return replace(found, names=class_names(folder / file))
    data, revision = _load_or_say(source, split, folder)
    features = getattr(data, "features", None) or {}
    names = {name: feature.names for name, feature in features.items() if hasattr(feature, "names")}
    return replace(_rows(data.to_list(), "hub", revision), names=names)


def first(source: Source, split: str, root: Path | None = None) -> Row:
    """Return the first row of a split of a generator, the mirror or the Hub. Raises `DataError`."""
    if source.generator:
        return next(iter(source.generator(split, 1)))
    folder, file = _mirror(root), split_path(source, split)
    if folder and (folder / file).is_file():
        return first_row(folder / file)
    data, _ = _load_or_say(source, split, folder)
    return dict(data[0])


def load_split(source: Source, split: str) -> tuple[Any, str | None]:
    """Load a split from the Hub as a `datasets.Dataset`, with its commit if known. Raises `HubError`."""
    try:
        return _load(source, split)
    except Exception as error:  # the Hub clients raise exceptions without a common base class
        raise HubError(source, split, error) from error


def key(source: Source, split: str) -> tuple[str, str, str]:
    """Return the manifest key of a split: Hub id, configuration, split name."""
    return source.name, source.config or "default", split


def split_path(source: Source, split: str) -> Path:
    """Return the path of a split, relative to the mirror."""
    name, config, _ = key(source, split)
    return Path(name, config, f"{split}.parquet")


def manifest(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """Return the lines of a mirror's manifest by `key`; empty without a manifest. Raises `DataError`."""
    try:
        with (folder / MANIFEST).open(encoding="utf-8", newline="") as lines:
            found = [{name: value or "" for name, value in line.items() if name} for line in csv.DictReader(lines)]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{folder / MANIFEST} cannot be read: {one_line(error)}. Correct or remove it") from error
    return {(line.get("hub_id", ""), line.get("config", ""), line.get("split", "")): line for line in found}


def example_of(task: Task, row: Row, **arguments: Any) -> Example:
    """Convert a row to an example. Raises `DataError` for a missing column, invalid value or unknown label."""
    source, columns = task.facts.source, ", ".join(row)
    where = f"task '{task.name}', data set {source_title(source)}"
    try:
        made: Example = task.function(row, **arguments)
    except KeyError as error:
        raise DataError(
            f"{where}: no column {error}; its columns are {columns}. Is this the right data set?"
        ) from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}, in a row with the columns {columns}") from error
    if task.facts.labels and made.target not in task.facts.labels:
        raise DataError(f"{where}: '{made.target}' is not one of the labels {', '.join(task.facts.labels)}")
    for name, text in (*made.fields.items(), ("target", made.target), *(("references", each) for each in made.answers)):
        if not isinstance(text, str):
            raise DataError(f"{where}: '{name}' is of the type {type(text).__name__}, not text")
        try:
            check_text(text)
        except ValueError as error:
            raise DataError(f"{where}: '{name}' holds {error}") from None
    return made


def check_label_names(
    task: Task, names: Mapping[str, Sequence[str]], rows: Sequence[Row], made: Sequence[Example]
) -> None:
    """Raise `DataError` if the task maps class labels to other names than the source (`names`, by column).

    Checked only if exactly one column has the task's labels as names and its values determine the targets.
    """
    labels = sorted(label.casefold() for label in task.facts.labels)
    columns = [column for column, given in names.items() if sorted(map(str.casefold, given)) == labels]
    if len(columns) != 1:
        return
    column, given = columns[0], names[columns[0]]
    told: dict[int, set[str]] = {}
    for row, one in zip(rows, made, strict=True):
        if isinstance(row[column], int) and 0 <= row[column] < len(given):
            told.setdefault(row[column], set()).add(one.target)
    if all(len(targets) == 1 for targets in told.values()):
        for value, (target,) in told.items():
            if target.casefold() != given[value].casefold():
                raise DataError(
                    f"task '{task.name}', data set {source_title(task.facts.source)}: {value} in its column '{column}' "
                    f"is {given[value]} by the source, and {target} by the task. Is this the right data set?"
                )


def source_title(source: Source) -> str:
    return f"{source.name} ({source.config})" if source.config else source.name


def _rows(rows: list[dict[str, Any]], origin: str, revision: str | None) -> LoadedRows:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return LoadedRows(rows, origin, revision, digest.hexdigest()[:16])


def _mirror(root: Path | None) -> Path | None:
    folder = root or (Path(os.environ["PEFTBENCH_DATA"]) if os.environ.get("PEFTBENCH_DATA") else None)
    if folder and not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist")
    return folder


def _load_or_say(source: Source, split: str, folder: Path | None) -> tuple[Any, str | None]:
    """Load a split from the Hub; the error also names the mirror file that would replace the download."""
    try:
        return load_split(source, split)
    except HubError as error:
        absent = f"not in {folder}; " if folder else ""
        wanted = f"Run with --data DIR where DIR holds {split_path(source, split).as_posix()}"
        raise DataError(f"{error.what}: {absent}{error.cause}. {wanted}, or {error.way_out}") from error


def _load(source: Source, split: str) -> tuple[Any, str | None]:
    """Load a split and its commit; temporary failures are retried."""
    import datasets

    _quiet()
    # Permanent errors, and errors that follow the client's own retries.
    final = (datasets.exceptions.DatasetNotFoundError, ConnectionError)
    for wait in (*WAITS, None):
        try:
            data = datasets.load_dataset(source.name, source.config, split=split, revision=source.revision)
            break
        except Exception as error:
            if wait is None or isinstance(error, final) or not isinstance(error, OSError):
                raise
            time.sleep(wait)
    # The cache has a folder per commit. If the Hub fails, `datasets` returns any cached commit.
    commits = {Path(file["filename"]).parent.name for file in data.cache_files}
    commit = commits.pop() if len(commits) == 1 else None
    if is_revision_commit(source.revision) and commit != source.revision:
        raise ConnectionError(f"the cache holds commit {commit}, not {source.revision}, and the Hub did not serve that")
    return data, commit if is_revision_commit(commit) else None


def _quiet() -> None:
    """Disable progress bars and retry messages of the Hub clients; the exception reports the failure."""
    import datasets
    from huggingface_hub.utils.tqdm import disable_progress_bars

    datasets.disable_progress_bars()
    disable_progress_bars()
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def is_revision_commit(revision: str | None) -> bool:
    """Return True for a full commit hash, which always identifies the same rows."""
    return bool(re.fullmatch(r"[0-9a-f]{40}", revision or ""))


def _way_out(error: Exception) -> str:
    from datasets.exceptions import DatasetNotFoundError

    if "gated" in str(error):
        return "ask for access on its page of the Hub and log in (HF_TOKEN)"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "free space in the cache (HF_HOME)"
    lasting = isinstance(error, DatasetNotFoundError | RuntimeError | ValueError)
    return "correct the task's source" if lasting else "connect to the Hub"
