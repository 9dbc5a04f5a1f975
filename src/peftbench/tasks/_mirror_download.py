"""Local mirrors of data sets: fetched from the Hub for machines that cannot reach it, and checked.

`tasks/door.py` says how a mirror is laid out, and reads it. Its manifest has a line a file: where the rows are from, at
which commit, and the checksum that proves the file whole.
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
"""Of a manifest. `columns` are joined by `|`, and so are the names of an integer class label."""


@dataclass(frozen=True)
class Wanted:
    """A split that a task reads."""

    source: Source
    split: str
    licence: str = ""


@dataclass(frozen=True)
class Fetched:
    """What became of a split: `kept` is one that was there and whole. `line` is its line of the manifest."""

    wanted: Wanted
    status: Literal["fetched", "kept", "failed"]
    line: dict[str, str]
    why: str = ""


@dataclass(frozen=True)
class MirrorFinding:
    """What a check found of a file or a task. `problem`: what is wrong; `note`: what is only worth knowing."""

    kind: Literal["file", "task"]
    name: str
    rows: int | None = None
    checksum: Literal["agrees", "differs", "not recorded", ""] = ""
    problem: str = ""
    note: str = ""


def wanted(names: Sequence[str]) -> tuple[list[Wanted], list[str]]:
    """The splits that tasks and suites of these names read, each once, and the tasks that are made by rule.

    Raises `UserError` for an unknown name, or for two tasks that pin two commits of one file.
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
    """Have splits in the mirror at `root`: what is there and whole is kept, else it is loaded from the Hub.

    A file appears at once and whole, its line in the manifest after it. Raises `UserError` if `root` cannot be written.
    """
    failed: dict[Source, HubError] = {}
    for each in asked:
        if line := _whole(each, root):
            yield Fetched(each, "kept", line)
            continue
        try:
            # The client loads a data set whole: what kept one split of it away keeps away the others.
            if each.source in failed:
                raise HubError(each.source, each.split, failed[each.source].error)
            yield Fetched(each, "fetched", _fetch(each, root))
        except HubError as error:
            # A `ValueError` comes at once, and may mean this split alone.
            if not isinstance(error.error, ValueError):
                failed[each.source] = error
            yield Fetched(each, "failed", {}, str(error))


def _whole(asked: Wanted, root: Path) -> dict[str, str] | None:
    """The line of a split that the mirror has, proved by its checksum and of the commit that is pinned."""
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
    """Whether the files of a mirror are what its manifest says, and whether the tasks that read them can.

    Raises `UserError` if `root` is no folder or holds no data.
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
    """The SHA-256 of a file, in hexadecimal digits."""
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
    """What becomes of each task of which the mirror has a split: the first row of every split, rendered."""
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
    """What keeps the first rows of files from being rendered, if anything does."""
    try:
        for file in files:
            row = first_row(root / file)
            made = example_of(unit, row)
            check_label_names(unit, class_names(root / file), [row], [made])
            prompt(unit.facts, made.fields)
    except DataError as error:
        return str(error)
    return ""
