"""The one door through which the rows of a source are read: its files; a local mirror if it holds them, else the Hub.

A mirror is a folder with `<org>/<name>/<config or "default">/<split>.parquet`, and perhaps a `MANIFEST.csv` whose
column `revision` says which commit of the Hub a file came from.
"""

import csv
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftbench.tasks import Example, Row, Source, Task
from peftbench.tasks.files import DataError as DataError
from peftbench.tasks.files import one_line, read_parquet, table

WAITS = (1.0, 4.0)
"""Seconds before asking the Hub again. Its clients have retries of their own, which some 429 and 5xx escape."""


@dataclass(frozen=True)
class Rows:
    """The rows of a split, and what they are.

    `origin` is `mirror`, `hub`, `file` or `generator`, `revision` the commit of the Hub where known, `fingerprint`
    sixteen hexadecimal digits of the rows' content.
    """

    rows: list[dict[str, Any]]
    origin: str
    revision: str | None
    fingerprint: str


def read(source: Source, split: str, root: Path | None = None, count: int | None = None) -> Rows:
    """All rows of a split, from the mirror at `root` (or else `$PEFTBENCH_DATA`) if it holds them, else from the Hub.

    Of a source made by rule, `count` rows; of one with files, those of the file. Class labels are numbers. Raises
    `DataError`.
    """
    if source.files:
        return _rows(table(Path(split)), "file", None)
    if source.generator:
        if count is None:
            raise DataError(f"data set {source.name} is made by rule and has no end: ask for a number of rows")
        return _rows([dict(row) for row in source.generator(split, count)], "generator", None)
    folder = root or (Path(os.environ["PEFTBENCH_DATA"]) if os.environ.get("PEFTBENCH_DATA") else None)
    if folder and not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist")
    place = Path(source.name, source.config or "default", f"{split}.parquet")
    if folder and (folder / place).is_file():
        return _rows(read_parquet(folder / place), "mirror", _mirror_revision(folder, source, split))
    try:
        rows, revision = _read_hub(source, split)
    except Exception as error:  # the Hub's clients raise errors of many libraries, which share no type
        cause = one_line(error)
        absent = f"not in {folder}; " if folder else ""
        raise DataError(
            f"data set {_title(source)}, split '{split}': {absent}from the Hub: {type(error).__name__}: {cause}. "
            f"Run with --data DIR where DIR holds {place.as_posix()}, or {_way_out(error)}"
        ) from error
    return _rows(rows, "hub", revision)


def example(task: Task, row: Row, **arguments: Any) -> Example:
    """The task's example of a row. Raises `DataError` for a missing column, a wrong value or an unknown label."""
    source, columns = task.facts.source, ", ".join(row)
    where = f"task '{task.name}', data set {_title(source)}"
    try:
        made: Example = task.function(row, **arguments)
    except KeyError as error:
        raise DataError(
            f"{where}: no column {error}; its columns are {columns}. Was another data set meant?"
        ) from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}, in a row with the columns {columns}") from error
    if task.facts.labels and made.target not in task.facts.labels:
        raise DataError(f"{where}: '{made.target}' is none of the labels {', '.join(task.facts.labels)}")
    return made


def _title(source: Source) -> str:
    return f"{source.name} ({source.config})" if source.config else source.name


def _rows(rows: list[dict[str, Any]], origin: str, revision: str | None) -> Rows:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return Rows(rows, origin, revision, digest.hexdigest()[:16])


def _mirror_revision(folder: Path, source: Source, split: str) -> str:
    """What the mirror's manifest says of a file, or `mirror`."""
    manifest = folder / "MANIFEST.csv"
    if not manifest.is_file():
        return "mirror"
    sought = (source.name, source.config or "default", split)
    with manifest.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            if (line.get("hub_id"), line.get("config"), line.get("split")) == sought:
                return line.get("revision") or "mirror"
    return "mirror"


def _read_hub(source: Source, split: str) -> tuple[list[dict[str, Any]], str | None]:
    """The rows and their commit. The second and third attempt are for failures that may pass."""
    import datasets

    # Answers that do not change by asking again. `ConnectionError` comes after the client's own half minute of retries.
    final = (datasets.exceptions.DatasetNotFoundError, ConnectionError, RuntimeError, ValueError)
    for wait in (*WAITS, None):
        try:
            data = datasets.load_dataset(source.name, source.config, split=split, revision=source.revision)
            break
        except Exception as error:
            if wait is None or isinstance(error, final):
                raise
            time.sleep(wait)
    # The cache keeps each commit in a folder of its name. When the Hub fails, `datasets` serves any that is there.
    commits = {Path(file["filename"]).parent.name for file in data.cache_files}
    commit = commits.pop() if len(commits) == 1 else None
    if _is_commit(source.revision) and commit != source.revision:
        raise ConnectionError(f"the cache holds commit {commit}, not {source.revision}, and the Hub did not serve that")
    return data.to_list(), commit if _is_commit(commit) else None


def _is_commit(revision: str | None) -> bool:
    return bool(re.fullmatch(r"[0-9a-f]{40}", revision or ""))


def _way_out(error: Exception) -> str:
    from datasets.exceptions import DatasetNotFoundError

    if "gated" in str(error):
        return "ask for access on its page of the Hub and log in (HF_TOKEN)"
    lasting = isinstance(error, DatasetNotFoundError) or not isinstance(error, OSError)
    return "correct the task's source" if lasting else "connect to the Hub"
