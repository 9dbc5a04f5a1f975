"""Published figures: read, kept, shown apart, and never counted among what was measured."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import peftbench
from conftest import SHARED
from peftbench.core.registry import UserError
from peftbench.methods import METHODS
from peftbench.methods._peft_types import REFUSED
from peftbench.report import write_report
from peftbench.report.published_tables import HEADING, published_tables
from peftbench.report.terminal import print_published
from peftbench.results.published import (
    Published,
    as_csv,
    bundled,
    gather,
    keep_published,
    kept_published,
    published_frame,
    read_published,
)
from peftbench.results.published.peft_methods import method_of
from peftbench.studies.leaderboard import leaderboards
from peftbench.studies.study_input import run_data
from peftbench.tasks import TASKS
from synthetic_table import curves, table

REFERENCE = SHARED / "reference"
LORA = {
    "task_type": "CAUSAL_LM",
    "peft_type": "LORA",
    "base_model_name_or_path": "org/small",
    "inference_mode": False,
    "r": 64,
    "target_modules": ["v_proj", "q_proj"],
    "exclude_modules": None,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "init_lora_weights": True,
    "rank_pattern": {},
    "megatron_core": "megatron.core",
}


def result_file(path: Path, **changes: Any) -> Path:
    """A made-up result in the schema of peft's method comparison."""
    prefix = changes.get("prefix", "accelerator")
    content = {
        "run_info": {
            "created_at": changes.get("date", "2026-01-02T03:04:05+00:00"),
            "total_time": 99.0,
            "experiment_name": changes.get("experiment", "lora/small-rank64"),
            "peft_branch": "main",
            "train_config": {
                "model_id": "org/small",
                "seed": 3,
                "optimizer_type": "AdamW",
                "optimizer_kwargs": {"lr": 0.0005},
            },
            "peft_config": changes.get("config", LORA),
            "error_msg": changes.get("error", ""),
        },
        "train_info": {
            f"{prefix}_memory_reserved_avg": 100,
            f"{prefix}_memory_max": 300,
            f"{prefix}_memory_reserved_99th": 200,
            "train_time": 80.5,
            "file_size": 4096,
            "num_trainable_params": 1000,
            "num_total_params": 50_000,
            "status": changes.get("status", "success"),
            "metrics": [
                {"step": 5, "valid accuracy": 0.25, "train loss": 1.5, "train time": 10.25},
                {"step": 10, "valid accuracy": 0.5, "train loss": 1.0, "train time": 10.5},
                {"step": 10, "test accuracy": changes.get("score", 0.375), "train loss": 1.0, "forgetting": 0.0625},
            ],
        },
        "meta_info": {
            "model_info": {"sha": "ab", "created_at": None},
            "dataset_info": dict.fromkeys(changes.get("data", ("metamath", "gsm8k"))),
            "package_info": {"peft-version": "0.21.0"},
            "system_info": {"accelerator": "NVIDIA L40S"} if prefix == "accelerator" else {"gpu": "NVIDIA L40S"},
            "pytorch_info": "",
        },
    }
    path.write_text(json.dumps(content))
    return path


# What comes with the package


@pytest.mark.parametrize("name", sorted(bundled()))
def test_bundled_names_are_ours_where_they_can_be(name: str) -> None:
    rows = read_published(bundled()[name])
    assert {row.task for row in rows} <= {task.name for task in TASKS}
    for row in rows:
        if row.method.isupper():  # a type of the library, started or trained in a way that we do not have
            assert row.published_as
            continue
        if row.method.removeprefix("peft:").upper() in REFUSED:
            continue
        given = dict(re.findall(r"(\w+)=(.+?)(?:, (?=\w+=)|$)", row.method_arguments))
        arguments = {key: json.loads(value) for key, value in given.items()}
        # What equals a default may be said all the same.
        assert METHODS[row.method].check(arguments).items() <= arguments.items()


def test_some_bundled_figures() -> None:
    found = {(row.method, row.task): row for row in read_published(bundled()["peft-bench"])}
    assert len(found) == 189
    assert (found["lora", "rte"].score, found["none", "rte"].score) == (85.7, 69.7)
    assert found["ia3", "rte"].trainable_parameters == 196_608
    assert found["none", "rte"].trainable_parameters is None
    experiments = {row.published_as: row for row in read_published(bundled()["peft-metamathqa"])}
    assert len(experiments) == 63
    best = experiments["lora/llama-3.2-3B-rank64-rslora"]
    assert (best.called, best.score) == ('rslora(modules=["q", "v"], rank=64)', 51.33)
    assert (best.train_seconds, best.train_phase_seconds, best.peak_memory_bytes) == (595.9, 965.5, None)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the published figures are not beside the repository")
def test_bundled_figures_are_those_of_the_sources() -> None:
    def lines(name: str) -> list[dict[str, str]]:
        with (REFERENCE / name).open() as file:
            return list(csv.DictReader(file))

    scores = [
        (row.source, row.model, row.method, row.task, row.metric, row.score)
        for row in read_published(bundled()["peft-bench"])
    ]
    names = ("source", "model", "method", "task", "metric")
    assert scores == [(*(line[n] for n in names), float(line["value"])) for line in lines("peft_bench_v1.csv")]
    theirs = {
        "score": "gsm8k_accuracy",
        "forgetting_loss": "forgetting_loss",
        "trainable_parameters": "trainable_parameters",
        "memory_reserved_max_bytes": "memory_reserved_max_bytes",
        "memory_reserved_p99_bytes": "memory_reserved_p99_bytes",
        "train_phase_seconds": "train_time_published_seconds",
        "train_seconds": "train_steps_seconds",
        "adapter_bytes": "adapter_bytes",
        "learning_rate": "learning_rate",
    }
    for row, line in zip(read_published(bundled()["peft-metamathqa"]), lines("peft_metamathqa.csv"), strict=True):
        assert (row.model, row.published_as) == (line["model"], line["experiment"])
        assert {ours: getattr(row, ours) for ours in theirs} == {
            ours: float(line[name]) for ours, name in theirs.items()
        }


# Never mixed with what was measured

NAMES = st.sampled_from(["full", "lora", "none", "vera", "new"])
ROWS = st.builds(
    Published,
    source=st.sampled_from(["a paper", "another"]),
    model=st.sampled_from(["qwen2.5-0.5b", "org/other"]),
    method=NAMES,
    method_arguments=st.sampled_from(["", "rank=4"]),
    task=st.sampled_from(["emotions", "arithmetic", "data_to_text", "other"]),
    metric=st.sampled_from(["accuracy", "rouge_l"]),
    score=st.floats(-100, 100),
    seed=st.none() | st.integers(0, 2),
    machine=st.sampled_from(["", "cpu-16", "gpu"]),
    train_seconds=st.none() | st.floats(0, 1e9),
    trainable_parameters=st.none() | st.integers(0, 10**12),
    peak_memory_bytes=st.none() | st.integers(0, 10**15),
)
MEASURED = table().query("method in ['full', 'lora', 'vera', 'none']")
BOARDS = {pool: [board.to_dict() for board in leaderboards(MEASURED, pool_machines=pool)] for pool in (False, True)}


@pytest.mark.slow
@given(st.lists(ROWS, max_size=12), st.booleans(), st.randoms())
@settings(max_examples=15)
def test_published_rows_change_nothing_of_the_measured_leaderboard(rows: list[Published], pool: bool, rnd: Any) -> None:
    lines = [*MEASURED.to_dict("records"), *published_frame(rows).assign(size="1000").to_dict("records")]
    rnd.shuffle(lines)
    boards = leaderboards(pd.DataFrame(lines), pool_machines=pool)
    assert [board.to_dict() for board in boards] == BOARDS[pool]


def test_published_rows_alone_are_no_leaderboard() -> None:
    assert leaderboards(published_frame(read_published(bundled()["peft-bench"]))) == ()


def test_the_table_has_them_when_asked(tmp_path: Path) -> None:
    keep_published(tmp_path, gather(["peft-bench"]))
    assert peftbench.table(tmp_path).empty
    both = peftbench.table(tmp_path, published=True)
    assert set(both["status"]) == {"published"}
    assert set(both["source"]) == {"arXiv 2511.21285v1 Tables 1-2"}
    assert both["id"].is_unique


# Shown apart


@pytest.mark.slow
def test_a_report_shows_them_apart(tmp_path: Path) -> None:
    shown, context = run_data(MEASURED, curves(MEASURED)), {"title": "both"}
    evil = Published(source="<b>|x|</b>", model="m", method="lora", task="emotions", metric="accuracy", score=99.94)
    both = write_report(shown, context, tmp_path, published_frame([evil]))
    assert [path.name for path in both] == ["leaderboard.md", "leaderboard.csv", "index.html", "published.csv"]
    markdown, table_of_runs, page, rows = (path.read_text() for path in both)
    without = write_report(shown, context, tmp_path)
    assert without == both[:3]
    assert not both[3].exists()
    plain = without[0].read_text()
    assert markdown.startswith(plain)
    assert f"## {HEADING}" in markdown.removeprefix(plain)
    assert r"m, published in &lt;b>\|x\|&lt;/b>" in markdown
    assert without[1].read_text() == table_of_runs
    assert '<h2 id="published">' in page
    assert "<b>|x|" not in page
    assert "&lt;b&gt;|x|&lt;/b&gt;" in page
    assert 'id="published"' not in without[2].read_text()
    (line,) = csv.DictReader(io.StringIO(rows))
    assert (line["status"], line["score"], line["source"]) == ("published", "99.94", "<b>|x|</b>")


def test_a_table_for_each_source_and_model_in_its_order() -> None:
    rows = read_published(bundled()["peft-bench"]) + read_published(bundled()["peft-metamathqa"])
    bench, meta = published_tables(published_frame(rows))
    assert [line[0] for line in bench.lines][:2] == ["none", "ia3(feedforward=[])"]
    assert len(bench.headings) == 1 + 27 + 3
    assert bench.lines[1][bench.headings.index("rte")] == "84.5"
    assert bench.note.startswith("F1 or macro-F1: mnli")
    assert meta.headings[:3] == ("Method", "Published as", "gsm8k")
    assert len(meta.lines) == 63
    assert meta.title.endswith("trained on MetaMathQA")


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_terminal_breaks_no_number(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    shown = published_tables(published_frame(read_published(bundled()["peft-bench"])))
    print_published(console, shown)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert HEADING in text
    for line in shown[0].lines:
        assert all(cell in text for cell in line[1:])
    assert max(map(len, text.splitlines())) <= width


# Reading results of peft


@pytest.mark.parametrize("prefix", ["accelerator", "cuda"])
def test_a_result_of_peft(prefix: str, tmp_path: Path) -> None:
    found = gather([str(result_file(tmp_path / "a.json", prefix=prefix))])
    ((row,),) = found.rows.values()
    assert row == Published(
        source="huggingface/peft method_comparison",
        model="org/small",
        method="lora",
        method_arguments='alpha=32, dropout=0.0, modules=["q_proj", "v_proj"], rank=64',
        published_as="lora/small-rank64",
        task="gsm8k",
        metric="accuracy",
        score=37.5,
        train_data="MetaMathQA",
        seed=3,
        learning_rate=0.0005,
        machine="NVIDIA L40S",
        date="2026-01-02T03:04:05+00:00",
        trainable_parameters=1000,
        total_parameters=50_000,
        train_seconds=20.75,
        train_phase_seconds=80.5,
        memory_reserved_max_bytes=300,
        memory_reserved_p99_bytes=200,
        adapter_bytes=4096,
        forgetting_loss=0.0625,
    )


IA3 = {"peft_type": "IA3", "target_modules": ["k", "v"], "feedforward_modules": [], "fan_in_fan_out": False}
PROMPT = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20, "prompt_tuning_init": "RANDOM", "token_dim": 64}


@pytest.mark.parametrize(
    ("config", "training", "expected"),
    [
        (None, {}, ("full", "")),
        (LORA | {"use_rslora": True}, {}, ("rslora", 'alpha=32, dropout=0.0, modules=["q_proj", "v_proj"], rank=64')),
        (
            LORA | {"use_dora": True, "use_rslora": True, "r": 4, "lora_alpha": 8},
            {},
            ("peft:lora", 'r=4, target_modules=["q_proj", "v_proj"], use_dora=true, use_rslora=true'),
        ),
        (
            LORA | {"bias": "all", "r": 8, "lora_alpha": 8, "target_modules": "all-linear"},
            {},
            ("peft:lora", 'bias="all", target_modules="all-linear"'),
        ),
        ({"peft_type": "LORA", "r": 4}, {"optimizer_type": "lora-fa"}, ("LORA", "r=4")),
        (
            PROMPT,
            {"init_kv_cache_prefix": "Q"},
            ("PROMPT_TUNING", "num_virtual_tokens=20"),
        ),
        (PROMPT, {}, ("prompt-tuning", 'init="RANDOM", tokens=20')),
        (IA3, {}, ("ia3", 'feedforward=[], modules=["k", "v"]')),
        ({"peft_type": "VERA", "r": 8, "projection_prng_key": 0}, {}, ("peft:vera", "r=8")),
        ({"peft_type": "OF_TOMORROW", "r": 8, "x": {}}, {}, ("OF_TOMORROW", "r=8")),
    ],
)
def test_methods_of_peft(config: dict[str, Any] | None, training: dict[str, Any], expected: tuple[str, str]) -> None:
    assert method_of(config, training) == expected


def test_the_same_again_changes_nothing_and_the_latest_stands(tmp_path: Path) -> None:
    source, store = tmp_path / "results", tmp_path / "store"
    source.mkdir()
    result_file(source / "b.json", date="2026-05-01", score=0.75)
    result_file(source / "c.json", date="2026-01-01", score=0.5)
    result_file(source / "d.json", experiment="lora/other", score=0.25)
    paths = keep_published(store, gather([str(source)]))
    before = {path: path.read_bytes() for path in paths}
    assert sorted(row.score for row in kept_published(store)[0]) == [25, 75]
    assert set(keep_published(store, gather([str(source / "d.json"), str(source)]))) == set(paths)
    assert {path: path.read_bytes() for path in (store / "published").iterdir()} == before


def test_a_run_that_did_not_end_well_is_left_out(tmp_path: Path) -> None:
    found = gather([str(result_file(tmp_path / "a.json", status="canceled", error="out of memory"))])
    assert found.rows == {}
    assert found.left_out == [f"{tmp_path / 'a.json'}: its status is canceled (out of memory)"]


WRONG = {
    "no JSON": ("{", "Expecting"),
    "a list": ("[]", "has no run_info, train_info, meta_info"),
    "another document": ('{"run_info": {}, "train_info": {}}', "has no meta_info"),
    "empty parts": ('{"run_info": {}, "train_info": {}, "meta_info": {}}', "has no 'status'"),
    "bytes": ("\x00\x01", "Expecting"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_result_is_said_in_one_line(what: str, tmp_path: Path) -> None:
    text, why = WRONG[what]
    (tmp_path / "x.json").write_text(text)
    result_file(tmp_path / "good.json")
    with pytest.raises(UserError, match=re.escape(why)) as error:
        gather([str(tmp_path)])
    assert str(error.value).startswith(f"{tmp_path / 'x.json'} is not a result of peft's method comparison")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"data": ()}, {"data": ("a", "b")}, {"score": None}, {"score": 40.0}, {"score": "x"}]
)
def test_results_of_another_kind(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a result of peft's method comparison"):
        gather([str(result_file(tmp_path / "a.json", **changes))])


@pytest.mark.parametrize(
    ("name", "why"),
    [("peft-bnch", "did you mean 'peft-bench'"), ("gone.json", "does not exist"), ("a/b", "does not exist")],
)
def test_names_of_nothing(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        gather([name])


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"contains no .json or .csv"):
        gather([str(tmp_path)])


# Files of one's own


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("source,model,method,task,metric,score\nmy paper,m,lora,rte,accuracy,70.5\n")
    keep_published(tmp_path, gather([str(tmp_path / "mine.csv")]))
    (row,) = kept_published(tmp_path)[0]
    assert (row.source, row.score, row.seed) == ("my paper", 70.5, None)


HEAD = "source,model,method,task,metric,score"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has no rows"),
        (f"{HEAD}\n", "it has no rows"),
        (f"{HEAD}\ns,m,lora,rte,accuracy,70\ns,m,lora,rte,accuracy,nan\n", "row 3: column score"),
        (f"{HEAD}\ns,m,lora,rte,accuracy,170\n", "row 2: column score"),
        (f"{HEAD}\n,m,lora,rte,accuracy,70\n", "row 2: column source: is missing"),
        (f"{HEAD},colour\ns,m,lora,rte,accuracy,70,red\n", "row 2: column colour"),
        (f"{HEAD}\ns,m,lora,rte,accuracy,70,80\n", "row 2: "),
    ],
)
def test_a_wrong_file_of_ones_own(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(why)) as error:
        gather([str(tmp_path / "mine.csv")])
    assert "\n" not in str(error.value)


def test_two_files_of_one_name_do_not_hide_each_other(tmp_path: Path) -> None:
    for folder, score in (("a", 70), ("b", 71)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.csv").write_text(f"{HEAD}\ns,m,lora,rte,accuracy,{score}\n")
    with pytest.raises(UserError, match="rename one"):
        gather([str(tmp_path / "a"), str(tmp_path / "b")])
    assert len(gather([str(tmp_path / "a"), str(tmp_path / "a" / "mine.csv")]).rows) == 1


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_rows_come_back_from_a_file(rows: list[Published]) -> None:
    lines = csv.DictReader(io.StringIO(as_csv(rows), newline=""))
    filled = [{key: value for key, value in line.items() if value} for line in lines]
    assert [Published.model_validate(line) for line in filled] == rows
