"""Damage to the files of a store: all of it is found, and it costs the run that it is in and nothing else."""

import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench.core.files import parse_json
from peftbench.core.spec import Choice, RunResult, RunSpec, Score
from peftbench.results.store import Store, write_predictions
from sealing import rewrite

VERBS = (["status"], ["list", "runs"], ["report"], ["verify"])


def peftbench(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "peftbench", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def spec(seed: int) -> RunSpec:
    names = {"model": Choice(name="pocket"), "method": Choice(name="lora"), "task": Choice(name="pocket_topic")}
    return RunSpec(**names, size=100, seed=seed)


def fill(root: Path, seeds: int = 2) -> Store:
    """A store with a run a seed, whose adapter was kept."""
    place = Store(root)
    for seed in range(seeds):
        folder = place.begin(spec(seed))
        (folder / "trace.jsonl").write_text('{"step": 1}\n')
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights.safetensors").write_bytes(bytes(range(256)))
        rows = [{"prediction": "sea", "references": ["sea"]}, {"prediction": "air", "references": ["sea"]}]
        score = {"accuracy": Score(value=50.0, standard_error=50.0)}
        found = RunResult(id=spec(seed).id, spec=spec(seed), status="ok", scores=score, row_scores="100 0")
        place.finish(folder, found, rows)
    return place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("whole") / "store").root


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "store"))


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_whole_store_is_whole(store: Path) -> None:
    assert Store(store).missing([spec(0), spec(1)]) == []
    done = peftbench("verify", str(store), "--json")
    assert (done.returncode, json.loads(done.stdout)["whole"]) == (0, 2)


@settings(max_examples=150)
@given(st.data())
def test_every_damaged_byte_is_found(whole: Path, data: st.DataObject) -> None:
    """A bit that is flipped, an end that is cut off, or more after the end: in any file of a run."""
    root = whole.parent / "copy"
    if not root.exists():
        shutil.copytree(whole, root)
    path = data.draw(st.sampled_from(files_of(root)))
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "append"]))
    after = bytearray(before)
    if change == "flip":
        after[at] ^= 1 << data.draw(st.integers(0, 7))
    after = {"flip": after, "cut": after[:at], "append": after + b"\n"}[change]
    path.write_bytes(after)
    try:
        place = Store(root)
        results = place.results()
        assert list(place.damaged) == [path], f"{path.name}: {change} at {at}"
        assert len(results) == 1
    finally:
        path.write_bytes(before)


def test_a_file_that_is_gone_is_found(store: Path) -> None:
    for path in files_of(store):
        if path.name != "result.json":
            content = path.read_bytes()
            path.unlink()
            place = Store(store)
            place.results()
            assert place.damaged == {path: "it is missing"}
            path.write_bytes(content)
    assert len(Store(store).results()) == 2


def test_damage_that_keeps_size_and_time_is_found_by_verify(store: Path) -> None:
    """As on a failing disk: reading trusts a file that looks unchanged, `verify` does not."""
    assert len(Store(store).results()) == 2
    path = next(path for path in files_of(store) if path.name == "weights.safetensors")
    times = path.stat()
    with path.open("r+b") as out:
        out.write(b"\xff")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = peftbench("verify", str(store), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert list(told["damaged"]) == [str(path)]
    assert told["run_again"] == [str(path.parent.parent)]


def test_a_run_with_a_damaged_file_is_done_again_and_kept_aside(store: Path) -> None:
    path = next(path for path in files_of(store) if path.name == "predictions.jsonl.gz")
    path.write_bytes(b"")
    (again,) = Store(store).missing([spec(0), spec(1)])
    assert again.id in str(path)
    place = fill(store)
    assert place.missing([spec(0), spec(1)]) == []
    assert any(".corrupt" in str(file) for file in files_of(store))


CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another score than its rows": lambda c: c["scores"]["accuracy"].update(value=60.0),
    "a score over the bounds of its metric": lambda c: (
        c["scores"]["accuracy"].update(value=101.0) or c.pop("row_scores")
    ),
    "a score that is not a number": lambda c: c["scores"]["accuracy"].update(value="NaN") or c.pop("row_scores"),
    "an infinite score": lambda c: c["scores"]["accuracy"].update(value="Infinity") or c.pop("row_scores"),
    "another id than its spec": lambda c: c["spec"].update(seed=7),
    "row scores that are text": lambda c: c.update(row_scores="high low"),
    "no row scores that are numbers": lambda c: c.update(row_scores="nan nan"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_result_that_contradicts_itself_counts_as_missing(
    store: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    path = next(path for path in files_of(store) if path.name == "result.json")
    rewrite(path, change)
    place = Store(store)
    assert len(place.results()) == 1
    assert list(place.damaged) == [path]


def test_scores_that_are_not_those_of_the_answers_are_found_by_verify(store: Path) -> None:
    path = next(path for path in files_of(store) if path.name == "result.json")
    answers = [{"prediction": "sea", "references": ["sea"]}] * 2
    write_predictions(path.parent, answers)
    rewrite(path, lambda _: None)
    assert len(Store(store).results()) == 2
    done = peftbench("verify", str(store), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert list(told["damaged"]) == [str(path)]
    assert "its accuracy is 50.0, but its answers score 100.0" in told["damaged"][str(path)]
    assert peftbench("score", "--store", str(store), "--save").returncode == 0
    assert peftbench("verify", str(store)).returncode == 0


def deep(path: Path) -> None:
    path.write_text('{"id": ' + "[" * 100_000 + "]" * 100_000 + "}")


def number(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        content = json.loads(path.read_text())
        del content["files"], content["digest"]
        content["result_schema"] = 1
        path.write_text(json.dumps(content).replace("50.0", text, 1))

    return write


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content)

    return write


HOSTILE: dict[str, Callable[[Path], None]] = {
    "Infinity": number("Infinity"),
    "NaN": number("NaN"),
    "1e400": number("1e400"),
    "10^400": number("1" + "0" * 400),
    "10^5000": number("1" + "0" * 5000),
    "nested 100,000 deep": deep,
    "a named pipe": pipe,
    "a folder": folder,
    "a lone surrogate": text('{"id": "\\ud800"}'),
    "a list": text("[]"),
    "empty": text(""),
}


def test_a_hostile_file_is_the_fault_of_its_run_and_of_no_verb(tmp_path: Path) -> None:
    """Every verb that reads the store goes on without the run, and names the file."""
    place = fill(tmp_path / "store", len(HOSTILE) + 1)
    paths = place.paths()
    for path, spoil in zip(paths, HOSTILE.values(), strict=False):
        spoil(path)
    for words in VERBS:
        done = peftbench(*words, *([] if words == ["verify"] else ["--store"]), str(place.root))
        assert "Traceback" not in done.stderr, words
        assert done.returncode == (1 if words == ["verify"] else 0), (words, done.stderr)
        said = done.stdout if words == ["verify"] else done.stderr
        assert words == ["list", "runs"] or all(str(path) in said.replace("\n", "") for path in paths[:-1]), words
    assert len(Store(place.root).results()) == 1


def test_a_bad_file_of_published_figures_does_not_stop_a_report(store: Path) -> None:
    (store / "published").mkdir()
    (store / "published" / "bad.csv").write_text("not,figures\n1,2\n")
    done = peftbench("report", "--store", str(store))
    assert done.returncode == 0
    assert "bad.csv" in done.stderr


def test_results_without_digests_are_read_and_told_of(store: Path) -> None:
    """A result of the first schema, before there were digests."""
    path = next(path for path in files_of(store) if path.name == "result.json")
    content = json.loads(path.read_text())
    del content["files"], content["digest"]
    path.write_text(json.dumps(content | {"result_schema": 1}))
    assert len(Store(store).results()) == 2
    told = json.loads(peftbench("verify", str(store), "--json").stdout)
    assert (told["whole"], told["without_digests"]) == (2, 1)
    path.write_text(json.dumps(content))
    place = Store(store)
    place.results()
    assert place.damaged == {path: "its digest is missing"}


def test_verify_of_no_store(tmp_path: Path) -> None:
    done = peftbench("verify", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "nowhere").exists()


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False), st.lists))
def test_json_that_is_fine_is_read(content: Any) -> None:
    text = json.dumps(content)
    if "Infinity" in text:
        with pytest.raises(ValueError, match="Infinity"):
            parse_json(text)
    else:
        assert parse_json(text) == json.loads(text)


def test_numbers_at_the_edge() -> None:
    assert parse_json("1e308") == 1e308
    assert math.isclose(parse_json("-0.5"), -0.5)
    for text in ("1e309", "-Infinity", "NaN", str(2**64), "-1" + "0" * 25):
        with pytest.raises(ValueError, match=r"too large|not a number"):
            parse_json(text)


def test_five_per_cent_of_all_files_damaged(tmp_path: Path) -> None:
    place = fill(tmp_path / "store", 40)
    rng = random.Random(3)
    files = files_of(place.root)
    damaged = set(rng.sample(files, len(files) // 20))
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
        path.write_bytes(content if rng.random() < 0.5 else content[: len(content) // 2])
    specs = [spec(seed) for seed in range(40)]
    missing = {each.id for each in place.missing(specs)}
    assert missing == {each.id for each in specs if any(each.id in str(path) for path in damaged)}
