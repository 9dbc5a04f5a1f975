"""One story from end to end: a grid that is killed ends like one that is not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import peftbench
from peftbench.results.store import Store

TIMES = ["train_seconds", "validation_seconds", "eval_seconds", "load_seconds", "tokenize_seconds", "tokens_per_second"]


def grid(folder: Path, model: Path) -> Path:
    text = f"""
        models = ["{model}"]
        methods = ["none", "full", {{ use = "lora", rank = [2, 4], learning_rate = 1e-2 }}, "ia3", "prompt-tuning"]
        tasks = ["pocket_sentiment", "pocket_arithmetic"]
        sizes = [24]
        seeds = [0, 1]
        [train]
        max_steps = 12
        validation_rows = 8
        [eval]
        test_rows = 16
        [[except]]
        method = "prompt-tuning"
        task = "pocket_arithmetic"
    """
    path = folder / "story.toml"
    path.write_text(text)
    return path


def command(path: Path, store: Path, workers: int) -> list[str]:
    return [sys.executable, "-m", "peftbench", "run", str(path), "--store", str(store), "--workers", str(workers)]


def finished(store: Path) -> set[Path]:
    return set(store.glob("*/*/*/*/*/result.json"))


def kill_after(path: Path, store: Path, workers: int, more: int, moment: float) -> set[Path]:
    """Start the grid, kill its whole process tree a moment after `more` further runs are done."""
    before = len(finished(store))
    process = subprocess.Popen(
        command(path, store, workers), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(finished(store)) < before + more and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(moment)
    done = finished(store)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(done) > before
    return done


def without_times(store: Path) -> pd.DataFrame:
    # How many runs went on beside it moves times alone.
    return peftbench.table(store).drop(columns=[*TIMES, "workers"])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> tuple[Path, Path, Path]:
    """The grid, a store filled without interruption, and one filled after a kill, each from nothing."""
    folder = tmp_path_factory.mktemp("story")
    path = grid(folder, tiny_models["llama"])
    whole, torn = folder / "whole", folder / "torn"
    subprocess.run(command(path, whole, 1), check=True, capture_output=True)
    moments = random.Random(time.time_ns())
    kept = kill_after(path, torn, 2, moments.randint(1, 4), moments.uniform(0, 0.5))
    stamps = {file: file.stat().st_mtime_ns for file in kept}
    subprocess.run(command(path, torn, 2), check=True, capture_output=True)
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items()), "a finished run was done again"
    return path, whole, torn


def test_the_torn_grid_ends_with_the_same_table(stores: tuple[Path, Path, Path]) -> None:
    path, whole, torn = stores
    assert peftbench.plan(path, torn)["missing"] == 0
    assert len(without_times(whole)) == peftbench.plan(path, whole)["cells"] == 22
    assert (peftbench.table(whole)["status"] == "ok").all()
    pd.testing.assert_frame_equal(without_times(whole), without_times(torn), check_exact=True)


def test_twice_from_nothing_gives_the_same_predictions(stores: tuple[Path, Path, Path]) -> None:
    _, whole, torn = stores
    first, second = Store(whole).results(), Store(torn).results()
    assert first.keys() == second.keys()
    for id_, (result, folder) in first.items():
        assert (folder / "predictions.jsonl.gz").read_bytes() == (second[id_][1] / "predictions.jsonl.gz").read_bytes()
        assert [p.validation_loss for p in result.curve] == [p.validation_loss for p in second[id_][0].curve]


def test_nothing_unfinished_is_left(stores: tuple[Path, Path, Path]) -> None:
    _, whole, torn = stores
    for store in (whole, torn):
        folders = {path.parent for path in store.glob("*/*/*/*/*/spec.json")}
        assert folders == {path.parent for path in finished(store)}


def test_the_base_model_is_left_as_it_was(stores: tuple[Path, Path, Path]) -> None:
    _, whole, _ = stores
    results = [result for result, _ in Store(whole).results().values()]
    assert len({result.base["checksum"] for result in results}) == 1
    assert {result.spec.method.name for result in results if result.base_reloaded} == {"full"}


def test_the_report_shows_every_method(stores: tuple[Path, Path, Path]) -> None:
    path, whole, _ = stores
    done = subprocess.run(
        [sys.executable, "-m", "peftbench", "report", str(path), "--store", str(whole), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    (board,) = json.loads(done.stdout)["leaderboards"]
    shown: dict[str, Any] = {row["method"]: row for row in board["rows"]}
    assert set(shown) == {"none", "full", "ia3", "lora(rank=2)", "lora(rank=4)", "prompt-tuning"}
    # A method without a cell of the others is not averaged, and the cell is named.
    assert shown["prompt-tuning"]["mean"] is None
    assert {cell["task"] for cell in shown["prompt-tuning"]["missing"]} == {"pocket_arithmetic"}
    assert shown["lora(rank=2)"]["pscp"]["relative"]["value"] is not None
    page = (whole / "report" / "index.html").read_text()
    assert all(method in page for method in shown)


def test_ctrl_c_leaves_a_clean_store_and_says_how_to_go_on(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    path, store = grid(tmp_path, tiny_models["llama"]), tmp_path / "stopped"
    # A shell lets what it starts with `&` ignore Ctrl-C, these tests too, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command(path, store, 2), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    while not finished(store) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "repeat the command: peftbench run" in said.replace("\n", " ")
    assert {p.parent for p in store.glob("*/*/*/*/*/spec.json")} == {p.parent for p in finished(store)} != set()


@pytest.mark.slow
def test_a_worker_that_dies_costs_one_run(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    """A method that kills its process: tried again, recorded as failed; the runs beside it are done."""
    plugin = tmp_path / "deadly.py"
    plugin.write_text(
        "import os\n"
        "from peftbench.methods import method\n\n"
        "@method(learning_rate=1e-3)\n"
        "def deadly(model):\n"
        "    os._exit(9)\n"
    )
    path = tmp_path / "grid.toml"
    path.write_text(
        f'models = ["{tiny_models["llama"]}"]\nmethods = ["deadly", "none"]\ntasks = ["pocket_sentiment"]\n'
        "sizes = [8]\n"
        "[train]\nvalidation_rows = 4\n[eval]\ntest_rows = 4\n"
    )
    store = tmp_path / "store"
    done = subprocess.run(
        [*command(path, store, 1), "--plugin", str(plugin)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("died (exit code 9)") == 2
    table = peftbench.table(store).set_index("method")
    assert table.loc["none", "status"] == "ok"
    assert table.loc["deadly", "status"] == "failed"
    assert "died with exit code 9, 2 times" in str(table.loc["deadly", "error"])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen", "gpt2"])
def test_any_causal_model_in_a_directory(architecture: str, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    """All methods that are not made for one model, with `--model PATH` instead of the grid's own model."""
    from peftbench.methods import METHODS

    ours = [unit for unit in METHODS if unit.function.__module__.startswith("peftbench.")]
    methods = [unit.name for unit in ours if not unit.facts.folder]
    path = tmp_path / "grid.toml"
    path.write_text(
        f'methods = {json.dumps(methods)}\ntasks = ["pocket_data_to_text"]\nsizes = [8]\n'
        "[train]\nmax_steps = 2\nvalidation_rows = 4\n[eval]\ntest_rows = 4\n"
    )
    store = tmp_path / "store"
    done = subprocess.run(
        [*command(path, store, 1), "--model", str(tiny_models[architecture])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = peftbench.table(store)
    assert set(table["method"]) == set(methods)
    # `gpt2` alone would be the model of the Hub.
    assert {name.rpartition("/")[2] for name in table["model"]} == {architecture}
    # GPT-2 has no linear layers but its own kind, of which the library's OLoRA cannot take the QR decomposition.
    refused = {"olora"} if architecture == "gpt2" else set()
    assert set(table.loc[table["status"] != "ok", "method"]) == refused, table[["method", "error"]].to_string()


@pytest.mark.slow
def test_a_worker_whose_parent_is_gone_leaves_no_result(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    path, store = grid(tmp_path, tiny_models["llama"]), tmp_path / "orphan"
    process = subprocess.Popen(command(path, store, 1), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not finished(store) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    seen: set[Path] | None = None
    while seen != (seen := finished(store)):
        time.sleep(3)
    assert len(seen) < 22
    assert (peftbench.table(store)["status"] == "ok").all()
