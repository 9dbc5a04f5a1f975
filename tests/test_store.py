"""The store: nothing finished is lost, nothing unfinished counts, and what cannot be read or written is said."""

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.core import files, provenance
from peftbench.core.registry import UserError
from peftbench.core.spec import SCHEMA, Choice, Costs, DataFacts, Point, RunResult, RunSpec, Score, Training
from peftbench.results import store
from peftbench.results.runs_table import table_row
from peftbench.results.schema import COLUMNS
from peftbench.results.store import Store, read_result

ROWS = [{"prediction": "ja – nein", "references": ["ja", "yes"]}, {"prediction": "", "references": ["no"]}]
FACTS = {"cpu": "abacus", "cores": 10}


def spec(method: str = "lora", seed: int = 0, **more: Any) -> RunSpec:
    chosen = Choice(name=method, arguments=more.pop("arguments", {}))
    task = Choice(name=more.pop("task", "rte"))
    return RunSpec(model=Choice(name="pocket"), method=chosen, task=task, size=more.pop("size", 100), seed=seed, **more)


def result(asked: RunSpec, **more: Any) -> RunResult:
    filled: dict[str, Any] = {"status": "ok", "scores": {"f1": Score(value=61.5)}, "machine": FACTS} | more
    return RunResult(id=asked.id, spec=asked, **filled)


def put(place: Store, asked: RunSpec, **more: Any) -> Path:
    return place.finish(place.begin(asked), result(asked, **more), ROWS)


def live_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(provenance, "machine_class", lambda: name)


@pytest.fixture(autouse=True)
def _abacus(monkeypatch: pytest.MonkeyPatch) -> None:
    live_on(monkeypatch, "abacus")


@pytest.fixture
def place(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


# Writing and reading


def test_round_trip(place: Store) -> None:
    asked = spec(arguments={"rank": 8})
    folder = put(place, asked)
    assert folder == place.root / "abacus" / "pocket" / "lora-rank=8" / "rte" / f"n100-s0-{asked.id}"
    assert place.find(asked.id) == (result(asked), folder)
    assert place.find(asked.id[:6]) == place.find(asked.id)
    assert place.predictions(asked.id) == ROWS
    assert RunSpec.model_validate_json((folder / "spec.json").read_text()) == asked
    assert sorted(p.name for p in folder.iterdir()) == ["predictions.jsonl.gz", "result.json", "spec.json"]


def numbers() -> st.SearchStrategy[float]:
    return st.floats(allow_nan=True, allow_infinity=True)


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=2))
POINTS = st.builds(
    Point,
    step=st.integers(),
    tokens=st.integers(),
    seconds=numbers(),
    train_loss=st.none() | numbers(),
    validation_loss=numbers(),
)
SPECS = st.builds(
    RunSpec,
    model=st.builds(Choice, name=TEXT, version=st.integers() | st.from_regex("[0-9a-f]{8}", fullmatch=True)),
    method=st.builds(Choice, name=TEXT, arguments=st.dictionaries(TEXT, JSON, max_size=3)),
    task=st.builds(Choice, name=TEXT),
    size=st.just("all") | st.integers(1),
    seed=st.integers(0),
    train=st.builds(Training, learning_rate=st.none() | st.floats(1e-9, 1), max_steps=st.integers(-1)),
)
RESULTS = st.builds(
    RunResult,
    id=TEXT,
    spec=SPECS,
    status=st.sampled_from(["ok", "out-of-memory", "diverged", "failed"]),
    scores=st.dictionaries(TEXT, st.builds(Score, value=numbers(), standard_error=st.none() | numbers()), max_size=3),
    costs=st.builds(Costs, trainable_parameters=st.none() | st.integers(), train_seconds=st.none() | numbers()),
    curve=st.lists(POINTS, max_size=3).map(tuple),
    data=st.none()
    | st.builds(
        DataFacts,
        source=TEXT,
        revision=st.none() | TEXT,
        fingerprint=TEXT,
        train_rows=st.integers(),
        validation_rows=st.integers(),
        test_rows=st.integers(),
    ),
    validation_loss=st.none() | numbers(),
    machine=st.dictionaries(TEXT, JSON, max_size=3),
    notes=st.lists(TEXT, max_size=3).map(tuple),
    error=st.none() | TEXT,
)


@given(RESULTS)
def test_results_survive_json(found: RunResult) -> None:
    """Written as `finish` writes it and read again: the same; the loss of a run that diverged included."""
    again = RunResult.model_validate_json(found.model_dump_json(indent=1, exclude_none=True))
    assert repr(again) == repr(found)  # not a number is not equal to itself, but looks like itself
    assert again.spec.id == found.spec.id
    json.loads(found.model_dump_json(), parse_constant=pytest.fail)  # no NaN or Infinity, which are not JSON


def test_a_loss_that_is_not_a_number_is_no_corrupt_result(place: Store) -> None:
    lost = Point(step=1, tokens=9, seconds=0.5, train_loss=float("inf"), validation_loss=float("nan"))
    put(place, spec(), status="diverged", curve=(lost,), validation_loss=float("nan"))
    assert place.missing([spec()]) == []
    assert place.damaged == {}
    assert place.curves()["train_loss"].tolist() == [float("inf")]


def test_the_same_predictions_are_the_same_bytes(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (put(place, spec()) / "predictions.jsonl.gz").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    second = (put(place, spec(seed=1)) / "predictions.jsonl.gz").read_bytes()
    assert first == second
    assert gzip.decompress(first).decode().splitlines() == [json.dumps(row, ensure_ascii=False) for row in ROWS]


def test_names_longer_than_a_file_system_takes(place: Store) -> None:
    """Two runs with very long names that begin alike do not mix."""
    long, longer = (spec(arguments={"modules": ["q_proj"] * count}) for count in (60, 61))
    put(place, long)
    assert place.missing([long, longer]) == [longer]
    put(place, longer)
    assert place.missing([long, longer]) == []


# What is done, and what is missing


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_crash_while_writing_leaves_the_run_missing(
    place: Store, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    written: list[str] = []
    write = files.write_atomically

    def crash(path: Path, content: bytes) -> None:
        written.append(path.name)
        if len(written) == crash_at:
            raise KeyboardInterrupt
        write(path, content)

    folder = place.begin(spec())
    monkeypatch.setattr(store, "write_atomically", crash)
    with pytest.raises(KeyboardInterrupt):
        place.finish(folder, result(spec()), ROWS)
    assert written == ["predictions.jsonl.gz", "result.json"][:crash_at]
    assert place.missing([spec()]) == [spec()]
    assert place.damaged == {}


def test_a_crash_before_the_rename_leaves_the_run_missing(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place.begin(spec())
    replace = Path.replace

    def crash(self: Path, target: Path) -> Path:
        if target.name == "result.json":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            place.finish(folder, result(spec()), ROWS)
    assert place.missing([spec()]) == [spec()]
    assert sorted(p.name for p in put(place, spec()).iterdir()) == ["predictions.jsonl.gz", "result.json", "spec.json"]
    assert place.missing([spec()]) == []


def test_what_an_unfinished_run_left_is_cleaned(place: Store) -> None:
    folder = place.begin(spec())
    (folder / "trace.jsonl").write_text("{}\n")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_text("half")
    assert place.missing([spec()]) == [spec()]
    assert place.begin(spec()) == folder
    assert sorted(p.name for p in folder.iterdir()) == ["owner.json", "spec.json"]


def test_abandon_takes_the_unfinished_alone_and_only_its_own(place: Store) -> None:
    done, undone = put(place, spec()), place.begin(spec(seed=1))
    others = Store(place.root).begin(spec(seed=1))
    place.abandon(spec())
    place.abandon(spec(seed=1))
    assert done.is_dir()
    assert not undone.exists()
    assert others.is_dir()
    assert place.missing([spec(seed=1)]) == [spec(seed=1)]


def test_of_two_that_do_a_run_the_first_is_kept(place: Store) -> None:
    second = Store(place.root)
    folders = place.begin(spec()), second.begin(spec())
    kept = place.finish(folders[0], result(spec(), error="first"), ROWS)
    stamp = (kept / "result.json").stat().st_mtime_ns
    assert second.finish(folders[1], result(spec(), error="second"), ROWS) == kept
    assert (kept / "result.json").stat().st_mtime_ns == stamp
    assert [r.error for r, _ in place.results().values()] == ["first"]
    assert not list((place.root / ".work").iterdir())


def test_a_result_stays_until_its_successor_is_there(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(place, spec(), status="failed", error="old", scores={})
    rename, seen = Path.rename, list[str | None]()

    def look(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        seen.extend(r.error for r, _ in place.results().values())
        return moved

    folder = place.begin(spec())
    with monkeypatch.context() as watched:
        watched.setattr(Path, "rename", look)
        new = place.finish(folder, result(spec(), error="new"), ROWS)
    assert seen == ["old", "new"]
    assert [p.name for p in new.parent.iterdir()] == [new.name]


def test_what_dead_processes_left_is_removed_and_what_may_live_is_kept(place: Store) -> None:
    living = Store(place.root).begin(spec())
    (dead,) = left_by_another_process(place.root, 1)
    elsewhere = place.root / ".work" / "elsewhere"
    shutil.copytree(living, elsewhere)
    owner = json.loads((living / "owner.json").read_text())
    (elsewhere / "owner.json").write_text(json.dumps(owner | {"boot": "of another machine", "pid": 1}))
    forgotten = Path(shutil.copytree(elsewhere, place.root / ".work" / "forgotten"))
    os.utime(forgotten, (1, 1))
    place.clean()
    assert {p.name for p in (place.root / ".work").iterdir()} == {living.name, elsewhere.name}
    assert not dead.exists()


def left_by_another_process(root: Path, seed: int) -> list[Path]:
    """What a process that has ended has left in a store."""
    code = (
        "import sys; from pathlib import Path; from peftbench.results.store import Store;"
        "from peftbench.core.spec import RunSpec;"
        "Store(Path(sys.argv[1])).begin(RunSpec.model_validate_json(sys.argv[2]))"
    )
    before = set((root / ".work").iterdir())
    subprocess.run([sys.executable, "-c", code, str(root), spec(seed=seed).model_dump_json()], check=True)
    return sorted(set((root / ".work").iterdir()) - before)


def test_missing_and_retry(place: Store) -> None:
    asked = [spec(seed=seed) for seed in range(5)]
    for one, status in zip(asked, ["ok", "failed", "out-of-memory", "diverged"], strict=False):
        put(place, one, status=status, scores={})
    assert place.missing(asked) == asked[4:]
    assert place.missing(asked, retry=("failed", "diverged")) == [asked[1], asked[3], asked[4]]
    assert place.missing(reversed(asked), retry=("ok",)) == [asked[4], asked[0]]


def test_a_run_may_be_tried_again_and_again(place: Store) -> None:
    for attempt in ("first", "second", "third"):
        put(place, spec(), status="failed", error=attempt, scores={})
        assert [r.error for r, _ in place.results().values()] == [attempt]
    put(place, spec())
    assert place.missing([spec()], retry=("failed",)) == []
    assert len(list(place.root.glob("*/*/*/*/*"))) == 1


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"3",
    b"null",
    b"\xff\xfe",
    b'{"id": "x"}',
    b'{"result_schema": 0}',
    b'{"result_schema": "1"}',
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_corrupt_result_is_told_and_done_again_and_kept(place: Store, content: bytes) -> None:
    folder = put(place, spec())
    good = put(place, spec(seed=1))
    (folder / "result.json").write_bytes(content)
    assert place.missing([spec(), spec(seed=1)]) == [spec()]
    assert list(place.damaged) == [folder / "result.json"]
    assert place.table()["id"].tolist() == [spec(seed=1).id]
    with pytest.raises(ValueError, match=r"result\.json"):
        read_result(folder / "result.json")
    put(place, spec())
    assert place.missing([spec(), spec(seed=1)]) == []
    assert place.damaged == {}
    (aside,) = (f for f in folder.parent.iterdir() if f not in (folder, good))
    assert (aside / "result.json").read_bytes() == content
    assert gzip.decompress((aside / "predictions.jsonl.gz").read_bytes())


def test_every_corrupt_result_is_kept(place: Store) -> None:
    """The same run, corrupted twice."""
    for content in (b"one", b"two"):
        (put(place, spec()) / "result.json").write_bytes(content)
    put(place, spec())
    kept = {path.read_bytes() for path in place.root.rglob("result.json")}
    assert {b"one", b"two"} < kept
    assert len(place.results()) == 1


def test_results_of_two_machine_classes(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = spec(), spec(seed=1)
    put(place, first)
    live_on(monkeypatch, "zuse")
    put(place, second, machine={"cpu": "zuse"})
    table = place.table().set_index("seed")
    assert table["machine_class"].to_dict() == {0: "abacus", 1: "zuse"}
    assert place.missing([first, second]) == []


@pytest.mark.parametrize("other", ["aardvark", "zuse"])
def test_a_run_that_failed_on_one_machine_and_succeeded_on_another_is_done(
    place: Store, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    put(place, spec(), status="failed", scores={})
    live_on(monkeypatch, other)
    put(place, spec())
    assert place.missing([spec()], retry=("failed",)) == []
    assert place.table()[["status", "machine_class"]].to_numpy().tolist() == [["ok", other]]


def test_find(place: Store) -> None:
    put(place, spec())
    put(place, spec(seed=1))
    with pytest.raises(UserError, match="no run with an id that starts with 'zzz'"):
        place.find("zzz")
    with pytest.raises(UserError, match="2 runs with an id that starts with ''") as several:
        place.find("")
    assert str(several.value).endswith(": " + ", ".join(place.results()))
    near = spec().id[:5] + "x"
    with pytest.raises(UserError, match=f"no run .*'{near}': did you mean '{spec().id}'"):
        place.find(near)


# The table


def test_columns_that_others_build_on(place: Store) -> None:
    promised = {"model", "method", "method_arguments", "task", "size", "seed", "status", "score", "id"}
    promised |= {"machine_class", "metric", "scores", "learning_rate", "train_rows", "error", *Costs.model_fields}
    assert promised <= set(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert list(place.table().columns) == list(COLUMNS), "also of an empty store"
    put(place, spec())
    assert list(place.table().columns) == list(COLUMNS)
    assert set(table_row(result(spec()), place.folder(spec()))) == set(COLUMNS)


def test_a_row_of_the_table(place: Store) -> None:
    asked = spec(arguments={"rank": 8, "modules": ["q", "v"]}, size="all", seed=4)
    costs = Costs(**{name: index + 1 for index, name in enumerate(Costs.model_fields) if not name.endswith("_source")})
    scores = {"f1": Score(value=61.5, standard_error=2.5), "accuracy": Score(value=70)}
    put(place, asked, costs=costs, scores=scores, notes=("one", "two"), learning_rate=1e-3)
    row = place.table().iloc[0].to_dict()
    assert {name: row[name] for name in Costs.model_fields} == costs.model_dump()
    told = {
        "id": asked.id,
        "model": "pocket",
        "method": "lora",
        "method_arguments": 'modules=["q", "v"], rank=8',
        "task": "rte",
        "task_arguments": "",
        "size": "all",
        "seed": 4,
        "status": "ok",
        "metric": "f1",
        "score": 61.5,
        "score_error": 2.5,
        "learning_rate": 1e-3,
        "notes": "one; two",
    }
    assert {name: row[name] for name in told} == told
    assert json.loads(row["scores"]) == {"f1": 61.5, "accuracy": 70}


def test_what_was_not_measured_is_missing_in_the_table(place: Store) -> None:
    put(place, spec(), status="failed", scores={}, error="no data")
    row = place.table().iloc[0]
    assert row["error"] == "no data"
    assert row[["score", "metric", "score_error", *Costs.model_fields]].isna().all()


def test_the_table_is_sorted_and_may_be_of_some_runs(place: Store) -> None:
    asked = [
        spec("lora", 1, size="all"),
        spec("ia3", 0, task="sst2"),
        spec("lora", 0, size=100),
        spec("lora", 0, size=20),
        spec("ia3", 0),
    ]
    for one in asked:
        put(place, one)
    table = place.table()
    told = table[["task", "method", "size", "seed"]].to_numpy().tolist()
    assert told == [
        ["rte", "ia3", 100, 0],
        ["rte", "lora", 20, 0],
        ["rte", "lora", 100, 0],
        ["rte", "lora", "all", 1],
        ["sst2", "ia3", 100, 0],
    ]
    some = place.table([asked[1].id, "not there"])
    assert some["id"].tolist() == [asked[1].id]
    assert place.table([]).empty


def test_curves(place: Store) -> None:
    points = tuple(Point(step=s, tokens=9 * s, seconds=s / 2, train_loss=None, validation_loss=1 / s) for s in (1, 2))
    put(place, spec(), curve=points)
    put(place, spec(seed=1))
    expected = pd.DataFrame({"id": [spec().id] * 2, "step": [1, 2], "validation_loss": [1.0, 0.5]})
    pd.testing.assert_frame_equal(place.curves()[list(expected)], expected)
    assert place.curves([spec(seed=1).id]).empty


# Older shapes


def test_older_results_stay_readable(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two schemas on: each upgrade is applied, in order, and the files are left as they are."""
    folder = put(place, spec())
    older = json.loads((folder / "result.json").read_text())
    before = (folder / "result.json").read_bytes()

    def rename(content: dict[str, Any]) -> dict[str, Any]:
        assert content["result_schema"] == SCHEMA
        return content | {"marks": content["scores"]}

    def scale(content: dict[str, Any]) -> dict[str, Any]:
        assert content["result_schema"] == SCHEMA + 1
        marks = content.pop("marks")
        return content | {"scores": {name: {"value": score["value"] / 100} for name, score in marks.items()}}

    monkeypatch.setattr(store, "SCHEMA", SCHEMA + 2)
    monkeypatch.setattr(store, "UPGRADES", {SCHEMA: rename, SCHEMA + 1: scale})
    found, _ = place.find(spec().id)
    assert found.result_schema == SCHEMA + 2
    assert found.scores == {"f1": Score(value=older["scores"]["f1"]["value"] / 100)}
    assert place.missing([spec()]) == []
    assert (folder / "result.json").read_bytes() == before


def test_a_result_of_a_newer_version_is_not_misread(place: Store) -> None:
    path = put(place, spec()) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"result_schema": SCHEMA + 1}))
    with pytest.raises(ValueError, match="newer version of peftbench"):
        read_result(path)


def test_every_older_schema_has_an_upgrade() -> None:
    assert sorted(store.UPGRADES) == list(range(1, SCHEMA))


# A store that cannot be written


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(UserError, match=r"^store .*results: cannot be written: File exists\. Choose another") as caught:
        Store(tmp_path / "results").open()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_a_store_where_nothing_can_be_made() -> None:
    with pytest.raises(UserError, match=r"^store /proc/results: cannot be written: "):
        Store(Path("/proc/results")).open()


def test_a_full_disk_is_found_before_anything_runs(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device\..*free disk space"):
        place.open()


def test_opening_leaves_nothing_behind(place: Store) -> None:
    place.open()
    place.open()
    assert list(place.root.iterdir()) == []


def test_looking_makes_nothing(place: Store) -> None:
    assert place.missing([spec()]) == [spec()]
    assert place.table().empty
    assert not place.root.exists()
