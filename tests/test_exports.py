"""Runs in the formats of others, and the verbs that bring figures in and out."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest
from huggingface_hub import ModelCard

from peftbench.cli.output import records
from peftbench.core import provenance
from peftbench.core.registry import UserError
from peftbench.core.spec import Choice, Costs, DataFacts, Evaluation, Point, RunResult, RunSpec, Score, Training
from peftbench.report.exports import export_runs
from peftbench.report.latex import latex, latex_escaped
from peftbench.results.published import gather, kept_published
from peftbench.results.store import Store
from peftbench.studies.leaderboard import leaderboards
from synthetic_table import run, table
from test_cli import call
from test_evidence import result_file

COSTS = Costs(
    trainable_parameters=123,
    total_parameters=4567,
    train_seconds=3.3000000000000003,
    tokens_per_second=70.0,
    peak_memory_bytes=10**9,
    adapter_bytes=999,
)
CURVE = (
    Point(step=2, tokens=100, seconds=1.1, train_loss=2.0, validation_loss=1.9),
    Point(step=4, tokens=230, seconds=3.3000000000000003, train_loss=1.0, validation_loss=0.9),
)
DATA = DataFacts(
    source="hub: nyu-mll/glue", revision="c0ffee", fingerprint="ab", train_rows=90, validation_rows=10, test_rows=50
)


def put(place: Store, method: str, task: str = "rte", seed: int = 0, size: Any = 100, **more: Any) -> RunResult:
    asked = RunSpec(
        model=Choice(name=more.pop("model", "meta-llama/Llama-3.2-1B")),
        method=Choice(name=method, arguments=more.pop("arguments", {})),
        task=Choice(name=task),
        size=size,
        seed=seed,
        train=Training(weight_decay=0.01),
        eval=Evaluation(test_rows=50),
    )
    scores = {"f1": Score(value=61.7, standard_error=2.0), "accuracy": Score(value=58.0, standard_error=2.0)}
    found: dict[str, Any] = {"status": "ok", "scores": scores, "costs": COSTS, "curve": CURVE, "data": DATA}
    found |= {"learning_rate": 5e-4, "steps": 4, "versions": {"peftbench": "0.1.0", "torch": "2.9"}} | more
    result = RunResult(id=asked.id, spec=asked, **found)
    place.finish(place.begin(asked), result, [])
    return result


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(provenance, "machine_class", lambda: "abacus")
    store = Store(tmp_path / "results")
    put(store, "lora", arguments={"rank": 8})
    put(store, "full")
    put(store, "peft:vera", arguments={"r": 4}, size="all", seed=2)
    put(store, "svft", task="gsm8k", scores={"final_number": Score(value=12.5)}, curve=(), costs=Costs())
    put(store, "ia3", status="failed", scores={}, error="no memory left", curve=(), costs=Costs(), data=None)
    return store


# Tables


def test_csv_and_parquet_hold_the_table(place: Store, tmp_path: Path) -> None:
    expected = records(place.table().astype({"size": str}))
    assert export_runs(place, tmp_path / "out" / "runs.csv") == [tmp_path / "out" / "runs.csv"]
    export_runs(place, tmp_path / "runs.parquet")
    assert records(pd.read_parquet(tmp_path / "runs.parquet")) == expected
    text = pd.read_csv(tmp_path / "out" / "runs.csv", keep_default_na=False, dtype=str)
    assert list(text["id"]) == [row["id"] for row in expected]
    assert list(text["size"]) == [row["size"] for row in expected]
    scores = pd.to_numeric(text["score"]).astype(object).where(text["score"] != "", None)
    assert list(scores) == [row["score"] for row in expected]


def test_some_runs(place: Store, tmp_path: Path) -> None:
    wanted = [id_ for id_, (result, _) in place.results().items() if result.spec.method.name == "full"]
    export_runs(place, tmp_path / "runs.csv", ids=wanted)
    assert list(pd.read_csv(tmp_path / "runs.csv")["method"]) == ["full"]


def test_latex_is_escaped_and_whole() -> None:
    evil = pd.DataFrame([run(r"50%_#1 & \x{y}~^$ [z]", task, 0) for task in ("emotions", "arithmetic", "data_to_text")])
    runs = pd.concat([table(), evil], ignore_index=True)
    (board,) = leaderboards(runs)
    text = latex([board])
    assert r"50\%\_\#1 \& \textbackslash{}x\{y\}\textasciitilde{}\textasciicircum{}\$ {[}z{]}" in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    rows = [line for line in body if line.endswith(r"\\")]
    assert len(rows) == 1 + len(board.rows)
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns[1])}
    assert text.count(r"\begin") == text.count(r"\end")
    plain = re.sub(r"\\.", "", text)
    assert plain.count("{") == plain.count("}")
    assert "data\\_to\\_text" in text
    assert re.search(r"lora & \d+\.\d \{\[\}\d+\.\d, \d+\.\d\{\]\}", text)


def test_escaping_leaves_other_signs_alone() -> None:
    assert latex_escaped("naïve β = 1.5") == "naïve β = 1.5"
    assert latex_escaped("a_b\\") == r"a\_b\textbackslash{}"


# peft's schema


def test_a_round_trip_gives_the_same_figures(place: Store, tmp_path: Path) -> None:
    files = export_runs(place, tmp_path / "peft", "peft")
    assert len(files) == 5
    found = gather([str(tmp_path / "peft")])
    rows = {row.published_as.partition("/")[0]: row for (row,) in found.rows.values()}
    assert [line.rpartition(": ")[2] for line in found.left_out] == ["its status is failed (no memory left)"]
    lora = rows["lora"]
    assert (lora.source, lora.model, lora.task) == ("peftbench 0.1.0", "meta-llama/Llama-3.2-1B", "rte")
    assert (lora.called, rows["full"].called, rows["peft:vera"].called) == ("lora(rank=8)", "full", "peft:vera(r=4)")
    assert (lora.metric, lora.seed, lora.learning_rate) == ("f1", 0, 5e-4)
    assert lora.score == pytest.approx(61.7, rel=1e-14)
    assert (lora.trainable_parameters, lora.total_parameters, lora.adapter_bytes) == (123, 4567, 999)
    assert lora.train_seconds == pytest.approx(3.3, rel=1e-14)
    assert (rows["svft"].metric, rows["svft"].score, rows["svft"].train_seconds) == ("accuracy", 12.5, None)


def test_what_the_schema_wants_and_nobody_measured_is_null(place: Store, tmp_path: Path) -> None:
    (path,) = [path for path in export_runs(place, tmp_path, "peft") if "lora" in path.name]
    content = json.loads(path.read_text())
    run_info, train, meta = content["run_info"], content["train_info"], content["meta_info"]
    assert (run_info["created_at"], run_info["total_time"], run_info["peft_branch"]) == (None, None, None)
    assert run_info["peft_config"]["peft_type"] == "LORA"
    memory = {name: value for name, value in train.items() if "memory" in name}
    assert memory == dict.fromkeys(
        ["accelerator_memory_reserved_avg", "accelerator_memory_max", "accelerator_memory_reserved_99th"]
    )
    assert train["train_time"] is None
    first, second, last = train["metrics"]
    assert (first["train time"], first["valid accuracy"], second["step"]) == (1.1, None, 4)
    assert second["tokens / sec"] == pytest.approx(130 / 2.2)
    assert (last["test f1"], last["test accuracy"], last["train total tokens"]) == (0.617, 0.58, 230)
    assert meta["dataset_info"] == {"rte": {"sha": "c0ffee", "created_at": None}}
    assert meta["package_info"]["torch-version"] == "2.9"
    assert meta["package_info"]["bitsandbytes-version"] is None


def test_a_loss_that_is_no_number_is_null(place: Store, tmp_path: Path) -> None:
    point = Point(step=1, tokens=1, seconds=1.0, train_loss=float("inf"), validation_loss=1.0)
    put(place, "dora", curve=(point,))
    (path,) = [path for path in export_runs(place, tmp_path, "peft") if "dora" in path.name]
    assert json.loads(path.read_text())["train_info"]["metrics"][0]["train loss"] is None


# Model cards


def test_model_index(place: Store, tmp_path: Path) -> None:
    files = export_runs(place, tmp_path, "model-index")
    assert len(files) == 4, "the run without a score has none"
    (path,) = [path for path in files if "lora" in path.name]
    card: Any = ModelCard(f"---\n{path.read_text()}---\n").data
    assert card.base_model == "meta-llama/Llama-3.2-1B"
    assert card.model_name == "meta-llama/Llama-3.2-1B lora(rank=8) rte"
    results = card.eval_results
    assert [(result.metric_type, result.metric_value) for result in results] == [("f1", 61.7), ("accuracy", 58.0)]
    first = results[0]
    assert (first.task_type, first.dataset_type, first.dataset_name) == ("text-classification", "nyu-mll/glue", "rte")
    assert (first.dataset_config, first.dataset_split, first.dataset_revision) == ("rte", "validation", "c0ffee")


def test_a_model_that_nobody_else_has_is_named_without_its_path(place: Store, tmp_path: Path) -> None:
    put(place, "bitfit", model="/home/me/secret/small", task="of_a_plugin")
    (card,) = [path for path in export_runs(place, tmp_path / "a", "model-index") if "bitfit" in path.name]
    (result,) = [path for path in export_runs(place, tmp_path / "b", "peft") if "bitfit" in path.name]
    for text in (card.read_text(), result.read_text()):
        assert "small" in text
        assert "secret" not in text


# What is wrong, and the verbs


def test_figures_are_files(place: Store, tmp_path: Path) -> None:
    both = [export_runs(place, tmp_path / name, "figures") for name in ("one", "two")]
    assert [path.read_bytes() for path in both[0]] == [path.read_bytes() for path in both[1]]
    kinds: dict[str, list[Path]] = {}
    for path in both[0]:
        kinds.setdefault(path.name[path.name.rindex(".") :], []).append(path)
    assert kinds.keys() == {".svg", ".png", ".json"}
    assert len({len(paths) for paths in kinds.values()}) == 1
    for path in kinds[".svg"]:
        assert ET.fromstring(path.read_text("utf-8")).tag.endswith("svg")
        assert "var(" not in path.read_text("utf-8")
    for path in kinds[".png"]:
        assert path.read_bytes().startswith(b"\x89PNG")
    for path in kinds[".json"]:
        alt.Chart.from_json(path.read_text("utf-8"))
    failed = [id_ for id_, (result, _) in place.results().items() if result.status != "ok"]
    with pytest.raises(UserError, match="no figure can be drawn from these runs"):
        export_runs(place, tmp_path, "figures", failed)


@pytest.mark.parametrize(
    ("to", "form", "why"),
    [
        ("runs.txt", None, "the format cannot be inferred from the extension; give --format: csv, parquet"),
        ("folder", None, "the format cannot be inferred from the extension"),
        ("runs.csv", "excel", "unknown format 'excel': known: csv"),
        ("file/runs.csv", None, "cannot be written"),
    ],
)
def test_what_cannot_be_written(to: str, form: str | None, why: str, place: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=re.escape(why)):
        export_runs(place, tmp_path / to, form)


def test_nothing_to_export(place: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results to export"):
        export_runs(Store(tmp_path / "empty"), tmp_path / "runs.csv")
    failed = [id_ for id_, (result, _) in place.results().items() if result.status != "ok"]
    with pytest.raises(UserError, match="no run has a score"):
        export_runs(place, tmp_path, "model-index", failed)


def test_the_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "machine_class", lambda: "abacus")
    store = tmp_path / "results"
    put(Store(store), "none", curve=(), costs=Costs())
    done = call("import", "peft-bench", result_file(tmp_path / "a.json"), "--store", store, "--json")
    assert done.code == 0
    assert (done.json["figures"], len(done.json["files"]), done.json["left_out"]) == (190, 2, [])
    before = {path: path.read_bytes() for path in (store / "published").iterdir()}
    assert call("import", "peft-bench", tmp_path / "a.json", "--store", store).code == 0
    assert {path: path.read_bytes() for path in (store / "published").iterdir()} == before
    report = call("report", "--store", store, "--json")
    assert (len(report.json["runs"]), len(report.json["published"])) == (1, 190)
    assert {row["status"] for row in report.json["published"]} == {"published"}
    assert (store / "report" / "published.csv").is_file()
    done = call("export", "--store", store, "--to", tmp_path / "runs.csv")
    assert (done.code, len(pd.read_csv(tmp_path / "runs.csv"))) == (0, 1)
    assert call("export", "--store", store, "--to", tmp_path / "x", "--format", "peft").out.endswith("files: 1\n")


def test_published_figures_alone_are_shown(tmp_path: Path) -> None:
    call("import", "peft-bench", "--store", tmp_path)
    told = call("report", "--store", tmp_path)
    assert told.code == 0
    assert "Published, not measured here" in told.out
    assert "prefix-tuning" in told.out
    assert call("report", "demo", "--store", tmp_path).code == 2


def test_the_terminal_shows_what_is_about_tasks_that_were_run(
    place: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    store = shutil.copytree(place.root, tmp_path / "store")
    call("import", "peft-bench", "--store", store)
    shown = call("report", "--store", store).out
    assert "meta-llama/Meta-Llama-3-8B-Instruct, published in arXiv 2511.21285v1 Tables 1-2" in shown
    assert re.search(r"Method +rte +gsm8k +Trainable", shown)
    assert f"{25 * 7} more published figures on other tasks" in shown


def test_what_the_verbs_refuse_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[]")
    done = call("import", tmp_path / "bad.json", "--store", tmp_path / "store")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert not (tmp_path / "store").exists()
    result_file(tmp_path / "bad.json", status="failed")
    done = call("import", tmp_path / "bad.json", "--store", tmp_path / "store")
    assert (done.code, "nothing to import" in done.err) == (2, True)


def test_a_damaged_file_of_the_store_is_named(place: Store) -> None:
    call("import", "peft-bench", "--store", place.root)
    (place.root / "published" / "peft-bench.csv").write_text("hello\n1\n")
    done = call("report", "--store", place.root)
    assert (done.code, "peft-bench.csv: is not a file of published results" in done.err) == (0, True)
    rows, damaged = kept_published(place.root)
    assert (rows, [path.name for path in damaged]) == ([], ["peft-bench.csv"])
