"""Download datasets into a local mirror for machines without access to the Hub, and check mirrors.

`_loading.py` documents the layout of a mirror. Its manifest has one line per file: source, commit and checksum.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peftbench.core.files import replacing
from peftbench.core.registry import UserError
from peftbench.tasks import TASKS, Source, Task, members
from peftbench.tasks._file_formats import class_names, first_row
from peftbench.tasks._loading import (
    MANIFEST,
    DataError,
    HubError,
    check_label_names,
    example_of,
    is_revision_commit,
    key,
    load_split,
    manifest,
    split_path,
)
from peftbench.tasks._prompt import prompt

COLUMNS = (
    *("hub_id", "config", "split", "rows", "columns", "label_names"),
    *("source_repo", "source_path", "licence", "notes", "revision", "sha256"),
)
"""Columns of a manifest. `columns` is joined by `|`, and so are the names of an integer class label."""


@dataclass(frozen=True)
class Wanted:
    """A split that a task reads."""

    source: Source
    split: str
    licence: str = ""


@dataclass(frozen=True)
class Fetched:
    """Result of fetching a split; `kept` means that a valid file existed. `line` is its manifest line."""

    wanted: Wanted
    status: Literal["fetched", "kept", "failed"]
    line: dict[str, str]
    why: str = ""


@dataclass(frozen=True)
class MirrorFinding:
    """Result of checking a file or a task. `problem` is an error, `note` is information."""

    kind: Literal["file", "task"]
    name: str
    rows: int | None = None
    checksum: Literal["agrees", "differs", "not recorded", ""] = ""
    problem: str = ""
    note: str = ""


def wanted(names: Sequence[str]) -> tuple[list[Wanted], list[str]]:
    """Return the distinct splits that these tasks and suites read, and the names of tasks without a Hub dataset.

    Raises `UserError` for an unknown name, or if two tasks pin different commits of one file.
    """
    found: dict[Path, Wanted] = {}
    made = []
    for name in dict.fromkeys(member for given in names for member in members(given)):
        source = TASKS[name].facts.source
        if not source.published:
            made.append(name)
            continue
        for split in _splits(source):
            file = split_path(source, split)
            held = found.setdefault(file, Wanted(source, split, TASKS[name].facts.licence))
            if held.source.revision != source.revision:
                raise UserError(f"task '{name}' and another pin two commits of {file}: fetch them into two folders")
    return list(found.values()), made


def fetch_mirror(asked: Iterable[Wanted], root: Path) -> Iterator[Fetched]:
    """Download splits into the mirror at `root`, except for valid existing files; yield one result per split.

    Files are written atomically, then their manifest line. Raises `UserError` if `root` cannot be written.
    """
    failed: dict[Source, HubError] = {}
    for each in asked:
        if line := _whole(each, root):
            yield Fetched(each, "kept", line)
            continue
        try:
            # The client loads a whole dataset, so its other splits would fail for the same reason.
            if each.source in failed:
                raise HubError(each.source, each.split, failed[each.source].error)
            yield Fetched(each, "fetched", _fetch(each, root))
        except HubError as error:
            # A `ValueError` is raised without delay and may concern only this split.
            if not isinstance(error.error, ValueError):
                failed[each.source] = error
            yield Fetched(each, "failed", {}, str(error))


def _whole(asked: Wanted, root: Path) -> dict[str, str] | None:
    """Return the manifest line of a split whose file has the recorded checksum and pinned commit, or `None`."""
    line, file = manifest(root).get(key(asked.source, asked.split), {}), root / split_path(asked.source, asked.split)
    pinned = asked.source.revision if is_revision_commit(asked.source.revision) else line.get("revision")
    if not line.get("sha256") or line.get("revision") != pinned or not file.is_file():
        return None
    return line if line["sha256"] == sha256_of_file(file) else None


def _fetch(asked: Wanted, root: Path) -> dict[str, str]:
    data, commit = load_split(asked.source, asked.split)
    file = root / split_path(asked.source, asked.split)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            data.to_parquet(partial)
        line = _line(asked, data, commit, sha256_of_file(file))
        _write_manifest(root, manifest(root) | {key(asked.source, asked.split): line})
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"mirror {root}: cannot be written: {why}. Make room, then repeat the command") from error
    return line


def check_mirror(root: Path) -> list[MirrorFinding]:
    """Check the files of a mirror against its manifest, and whether the tasks can convert their first rows.

    Raises `UserError` if `root` is not a folder or contains no data.
    """
    if not root.is_dir():
        raise UserError(f"data folder {root} does not exist")
    lines = {split_path(Source(name, config), split): line for (name, config, split), line in manifest(root).items()}
    there = {path.relative_to(root) for path in root.rglob("*.parquet") if path.is_file()}
    if not lines and not there:
        raise UserError(f"data folder {root} holds no data: fetch some with `peftbench fetch TASK --to {root}`")
    files = [_check_file(root, file, lines.get(file)) for file in sorted({*lines, *there})]
    good = {Path(finding.name) for finding in files if finding.rows is not None}
    return [*files, *_check_tasks(root, good, lines)]


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _splits(source: Source) -> tuple[str, ...]:
    return tuple(split for split in (source.train, source.validation, source.test) if split)


def _line(asked: Wanted, data: Any, commit: str | None, digest: str) -> dict[str, str]:
    from huggingface_hub.constants import ENDPOINT

    names = {name: feature.names for name, feature in data.features.items() if hasattr(feature, "names")}
    values = (
        *key(asked.source, asked.split),
        str(len(data)),
        "|".join(data.column_names),
        ";".join(f"{name}={'|'.join(given)}" for name, given in names.items()),
        f"{ENDPOINT}/datasets/{asked.source.name}",
        "",
        asked.licence,
        "",
        commit or "",
        digest,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _write_manifest(root: Path, lines: dict[tuple[str, str, str], dict[str, str]]) -> None:
    headings = list(dict.fromkeys([*COLUMNS, *(name for line in lines.values() for name in line)]))
    with replacing(root / MANIFEST) as partial, partial.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, headings, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines.values())


def _check_file(root: Path, file: Path, line: dict[str, str] | None) -> MirrorFinding:
    import pyarrow.parquet

    name, path = file.as_posix(), root / file
    if not path.is_file():
        return MirrorFinding("file", name, problem="in the manifest, but not there")
    try:
        rows = pyarrow.parquet.read_metadata(path).num_rows
        first_row(path)
    except (OSError, pyarrow.ArrowException, DataError) as error:
        return MirrorFinding("file", name, problem=f"cannot be read: {' '.join(str(error).split())[:200]}")
    if line is None:
        return MirrorFinding("file", name, rows, "not recorded", note="not in the manifest")
    if line.get("rows") and line["rows"] != str(rows):
        return MirrorFinding("file", name, rows, problem=f"the manifest says {line['rows']} rows")
    if not line.get("sha256"):
        return MirrorFinding("file", name, rows, "not recorded")
    if line["sha256"] != sha256_of_file(path):
        return MirrorFinding(
            "file", name, rows, "differs", "its content is not what was fetched: remove it and fetch again"
        )
    return MirrorFinding("file", name, rows, "agrees")


def _check_tasks(root: Path, files: set[Path], lines: dict[Path, dict[str, str]]) -> Iterator[MirrorFinding]:
    """Render the first row of each split for every task of which the mirror contains a split."""
    for unit in TASKS:
        source = unit.facts.source
        splits = {} if not source.published else {split: split_path(source, split) for split in _splits(source)}
        held = {split: file for split, file in splits.items() if file in files}
        if not held:
            continue
        notes = [f"no {split} split" for split in splits if split not in held]
        commits = {line["revision"] for file in held.values() if (line := lines.get(file, {})).get("revision")}
        if is_revision_commit(source.revision) and commits - {source.revision}:
            notes.append(f"of another commit than the {source.revision} that the task pins")
        yield MirrorFinding("task", unit.name, problem=_rendering(unit, root, held.values()), note="; ".join(notes))


def _rendering(unit: Task, root: Path, files: Iterable[Path]) -> str:
    """Return the error of rendering the first rows of files, or an empty string."""
    try:
        for file in files:
            row = first_row(root / file)
            made = example_of(unit, row)
            check_label_names(unit, class_names(root / file), [row], [made])
            prompt(unit.facts, made.fields)
    except DataError as error:
        return str(error)
    return ""
