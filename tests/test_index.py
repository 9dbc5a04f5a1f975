"""The index of a store: it saves reading, and never changes what is found."""

import os
import shutil
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import made_store
from peftbench.core.registry import UserError
from peftbench.core.spec import Choice, RunSpec
from peftbench.results import digests, read_cache
from peftbench.results.store import Store

CELLS = [(method, task, seed) for method in ("lora", "full") for task in ("sst2", "cola") for seed in (0, 1)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made_store.store(tmp_path / "store", *(made_store.result(*cell) for cell in CELLS))
    return tmp_path / "store"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each result file is read."""
    found: Counter[str] = Counter()
    unseal = digests.unseal

    def counted(path: Path, newest: int) -> object:
        found[str(path)] += 1
        return unseal(path, newest)

    monkeypatch.setattr("peftbench.results.store.unseal", counted)
    return found


def index_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "stores").iterdir()
    return path


def result_file(root: Path, at: int = 0) -> Path:
    return sorted(root.rglob("result.json"))[at]


def test_only_what_changed_is_read(root: Path, reads: Counter[str]) -> None:
    table = Store(root).table()
    assert len(reads) == reads.total() == len(CELLS)
    pd.testing.assert_frame_equal(Store(root).table(), table)
    assert reads.total() == len(CELLS)
    made_store.store(root, made_store.result("ia3"))
    reads.clear()
    assert len(Store(root).table()) == len(CELLS) + 1
    assert reads.total() == 1
    shutil.rmtree(result_file(root).parent)
    assert len(Store(root).table()) == len(CELLS)
    assert reads.total() == 1


def test_without_an_index_the_same_is_found(root: Path, tmp_path: Path) -> None:
    place = Store(root)
    table, curves = place.table(), place.curves()
    for content in (None, b"", b"not a database", index_file(tmp_path).read_bytes()[:3000]):
        if content is None:
            index_file(tmp_path).unlink()
        else:
            index_file(tmp_path).write_bytes(content)
        pd.testing.assert_frame_equal(Store(root).table(), table)
        pd.testing.assert_frame_equal(Store(root).curves(), curves)


def test_an_index_with_a_damaged_page_is_made_anew(root: Path, tmp_path: Path) -> None:
    table = Store(root).table()
    path = index_file(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 512):
        path.write_bytes(whole[:at] + bytes(512) + whole[at + 512 :])
        found = Store(root).table()
        pd.testing.assert_frame_equal(found, table)


def test_an_index_of_other_code_is_not_used(root: Path, monkeypatch: pytest.MonkeyPatch, reads: Counter[str]) -> None:
    Store(root).entries()
    monkeypatch.setattr(read_cache, "_code_digest", lambda: "other")
    Store(root).entries()
    assert set(reads.values()) == {2}


def test_files_of_other_code_are_removed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(root).entries()
    old = index_file(tmp_path)
    monkeypatch.setattr(read_cache, "_code_digest", lambda: "other")
    Store(root).entries()
    assert index_file(tmp_path) != old


def test_a_result_is_read_once_however_often_it_is_asked_for(root: Path, reads: Counter[str]) -> None:
    """As searches ask for their trials after each result."""
    results = Store(root).run_results()
    reads.clear()
    for _ in range(3):
        assert all(result.status == "ok" for result in results.values())
    assert set(reads.values()) == {1}


def test_a_folder_that_cannot_be_read_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs would otherwise be taken for missing, and be done again."""
    scandir, locked = os.scandir, next(path for path in root.iterdir() if not path.name.startswith("."))

    def guarded(path: str) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", guarded)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        Store(root).entries()


def test_a_cache_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = Store(root).table()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "file"))
    pd.testing.assert_frame_equal(Store(root).table(), table)
    if sys.platform == "linux":
        # Every write to it fails for want of room.
        full = tmp_path / "full"
        (full / "stores").mkdir(parents=True)
        monkeypatch.setenv("PEFTBENCH_CACHE", str(full))
        name = read_cache.Index(root).path
        name.unlink()
        name.symlink_to("/dev/full")
        pd.testing.assert_frame_equal(Store(root).table(), table)


def test_one_that_another_process_writes_is_waited_for_and_then_done_without(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Store(root).table()
    monkeypatch.setattr(read_cache, "WAIT", 0.1)
    made_store.store(root, made_store.result("ia3"))
    other = sqlite3.connect(index_file(tmp_path))
    other.execute("begin exclusive")
    assert len(Store(root).table()) == len(table) + 1
    other.rollback()
    assert len(Store(root).table()) == len(table) + 1


def test_a_result_with_new_content_and_the_old_time_is_read_again(root: Path) -> None:
    """Renamed into place, as all results are: the inode tells."""
    path = result_file(root)
    before = Store(root).table()
    found = path.stat()
    id_ = before["id"][0]
    spec = Store(root).find(id_)[0].spec
    place = Store(root)
    result = place.find(id_)[0].model_copy(update={"error": "another"})
    shutil.rmtree(place.find(id_)[1])
    written = place.finish(place.begin(spec), result, [])
    os.utime(written / "result.json", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert list(Store(root).table().query("id == @id_")["error"]) == ["another"]


def test_a_listing_looks_at_result_files_and_folders_alone(root: Path) -> None:
    answers = sorted(root.rglob("predictions.jsonl.gz"))
    Store(root).entries()
    content = answers[0].read_bytes()
    answers[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    # Within the file: left for the commands that look at all files.
    assert len(Store(root, result_files_only=True).entries()) == len(CELLS)
    assert len(Store(root).entries()) == len(CELLS) - 1
    answers[0].write_bytes(content)
    answers[1].unlink()
    assert len(Store(root, result_files_only=True).entries()) == len(CELLS) - 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "cut", "touch", "look"]), st.integers(0, 7)), max_size=8))
def test_whatever_happens_to_files_an_indexed_store_is_as_a_new_one(
    tmp_path: Path, steps: list[tuple[str, int]]
) -> None:
    root = tmp_path / f"store-{os.urandom(6).hex()}"
    made_store.store(root, *(made_store.result(*cell) for cell in CELLS[:4]))
    indexed = Store(root)
    for what, at in steps:
        files = sorted(path for path in root.glob("*/*/*/*/*/*") if path.is_file())
        path = files[at % len(files)] if files else None
        if what == "add":
            made_store.store(root, made_store.result(*CELLS[at]))
        elif what == "remove" and path:
            path.unlink()
        elif what == "cut" and path:
            path.write_bytes(path.read_bytes()[:-1])
        elif what == "touch" and path:
            path.touch()
        else:
            indexed.entries()
    fresh = Store(root)
    fresh._index = read_cache.Index(tmp_path / "nothing")
    assert indexed.entries().keys() == fresh.entries().keys()
    assert indexed.damaged == fresh.damaged
    pd.testing.assert_frame_equal(indexed.table(), fresh.table())


def test_a_copy_with_other_content_has_an_id_of_its_own() -> None:
    names = {"model": Choice(name="pocket"), "method": Choice(name="lora"), "task": Choice(name="sst2")}
    spec = RunSpec(**names, size=100, seed=0)
    first = spec.id
    other = spec.model_copy(update={"seed": 1})
    assert other.id == RunSpec(**names, size=100, seed=1).id != first
    assert spec.id == first
    assert spec == RunSpec.model_validate_json(spec.model_dump_json())
