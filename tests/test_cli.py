"""The command line: every verb, for people and for programs, and one line for what the user can put right."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from typer.core import TyperGroup

from peftbench.cli import app, main
from peftbench.cli.method_and_task_facts import KINDS, listing
from peftbench.core.spec import Costs, RunResult, RunSpec
from peftbench.grid.expand import expand
from peftbench.launch import Options, Watch, launchers
from peftbench.methods import METHODS
from peftbench.results.store import Store
from peftbench.tasks import suite

VERBS = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
SETTINGS = """
sizes = [8]
[train]
max_steps = 2
validation_rows = 4
[eval]
test_rows = 4
"""


@dataclass
class Done:
    """What a command left: exit status, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*arguments: str | Path) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["peftbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    assert isinstance(end.value.code, int)
    return Done(end.value.code, out.getvalue(), err.getvalue())


def write(path: Path, methods: Sequence[str], tasks: Sequence[str], model: Path | str = "pocket") -> Path:
    path.write_text(f'models = ["{model}"]\nmethods = {json.dumps(methods)}\ntasks = {json.dumps(tasks)}\n{SETTINGS}')
    return path


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return write(tmp_path / "grid.toml", ["none", "lora"], ["pocket_sentiment", "pocket_arithmetic"])


@dataclass
class Garden:
    """A grid that was run, its store and what the command said."""

    grid: Path
    store: Path
    done: Done


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> Garden:
    folder = tmp_path_factory.mktemp("garden")
    grid = write(folder / "garden.toml", ["none", "lora"], ["pocket_sentiment"], tiny_models["llama"])
    done = call("run", grid, "--store", folder / "results", "--workers", "1")
    return Garden(grid, folder / "results", done)


@pytest.fixture(scope="module")
def thirsty(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> Garden:
    """A grid whose only task's data can be had nowhere."""
    folder = tmp_path_factory.mktemp("thirsty")
    (folder / "data").mkdir()
    grid = write(folder / "thirsty.toml", ["none", "lora"], ["rte"], tiny_models["llama"])
    done = call("run", grid, "--store", folder / "results", "--workers", "1", "--data", folder / "data")
    return Garden(grid, folder / "results", done)


# Help


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str) -> None:
    done = call(verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"peftbench {verb}" in done.out
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[verb]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{verb}: {parameter.name} is not explained"


def test_help_of_the_verbs_about_data() -> None:
    assert "check" in call("data", "--help").out
    done = call("data", "check", "--help")
    assert (done.code, done.err) == (0, "")
    assert "Check a mirror against its manifest" in done.out


def test_help_names_every_verb() -> None:
    done = call("--help")
    assert done.code == 0
    assert {"run", "plan", "status", "list", "show", "report"} <= set(VERBS)
    assert all(f"  {verb} " in done.out for verb in VERBS)
    assert "Which parameter-efficient fine-tuning method" in done.out


# list and show


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_list(kind: str) -> None:
    listed = call("list", kind, "--json")
    assert listed.code == 0
    assert listed.json == json.loads(json.dumps(listing(kind)))
    names = [entry["name"] for entry in listed.json]
    assert len(names) > 1
    lines = call("list", kind).out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *names], "a line each, and no name cut off"


def test_listings_say_what_matters() -> None:
    by_name = {kind: {one["name"]: one for one in listing(kind)} for kind in KINDS[:-1]}
    assert by_name["methods"]["lora"]["learning_rate"] == METHODS["lora"].facts.learning_rate
    assert "rank=16" in by_name["methods"]["lora"]["arguments"]
    assert by_name["tasks"]["rte"]["metrics"] == "f1, accuracy"
    assert by_name["tasks"]["rte"]["source"] == "nyu-mll/glue (rte)"
    sizes = {"sst2": "67,349/872", "gsm8k": "7,473/1,319", "pocket_topic": "2,960/1,000"}
    assert {name: by_name["tasks"][name]["sizes"] for name in sizes} == sizes
    assert "pocket_sentiment" in by_name["suites"]["pocket"]["tasks"]
    assert by_name["models"]["pocket"]["source"] == "bundled"


def test_list_runs(garden: Garden, tmp_path: Path) -> None:
    listed = call("list", "runs", "--store", garden.store, "--json")
    assert [(run["method"], run["status"], run["size"]) for run in listed.json] == [
        ("lora", "ok", 8),
        ("none", "ok", 8),
    ]
    lines = call("list", "runs", "--store", garden.store).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [run["id"] for run in listed.json]
    assert call("list", "runs", "--store", tmp_path, "--json").json == []
    assert call("list", "runs", "--store", tmp_path).out == ""


SHOWN: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"name": "lora", "paper": "arXiv:2106.09685"}),
    ("sst2", {"kind": "classification", "labels": "negative, positive", "source": "nyu-mll/glue (sst2)"}),
    ("pocket", {"name": "pocket"}),
    ("llama-3-8b", {"source": "meta-llama/Meta-Llama-3-8B"}),
    ("accuracy", {"name": "accuracy"}),
]


@pytest.mark.parametrize(("name", "facts"), SHOWN)
def test_show(name: str, facts: dict[str, Any], tmp_path: Path) -> None:
    shown = call("show", name, "--json", "--data", tmp_path)
    assert shown.code == 0
    assert facts.items() <= shown.json.items()
    assert shown.json["about"]
    plain = call("show", name, "--data", tmp_path).out
    assert all(f"{key}: {value}\n" in plain for key, value in facts.items())


@pytest.mark.parametrize(
    ("kind", "name"), [("method", "lora"), ("task", "pocket_topic"), ("metric", "f1"), ("model", "llama-3-8b")]
)
def test_show_with_the_kind_before_the_name(kind: str, name: str) -> None:
    said = call("show", kind, name, "--json")
    assert said.code == 0, said.err
    assert said.json == call("show", name, "--json").json


def test_show_a_suite_that_has_the_name_of_a_model() -> None:
    assert "config" in call("show", "pocket", "--json").json
    tasks = suite("pocket")
    assert call("show", "suite", "pocket", "--json").json == {"name": "pocket", "tasks": ", ".join(tasks)}


def test_show_a_method_with_its_arguments() -> None:
    told = call("show", "lora", "--json").json["arguments"]
    where = {"modules": ["k", "v", "down"], "layers": "all"}
    assert told == {"rank": 16, "alpha": 16, "parameters": None, "dropout": 0.05, **where}
    of_peft = call("show", "peft:vera", "--json").json
    assert (of_peft["arguments"]["r"], of_peft["arguments"]["layers"], of_peft["paper"]) == (
        256,
        "all",
        "arXiv:2310.11454",
    )
    assert "method 'peft' needs type" in call("show", "peft").err


def test_show_a_task_with_an_example(tmp_path: Path) -> None:
    shown = call("show", "pocket_sentiment", "--json").json
    assert shown["prompt"].startswith("Which feeling speaks?\nAnswer with one of: anger, joy.\ntext: ")
    assert shown["target"] in ("anger", "joy")
    away = call("show", "rte", "--json", "--data", tmp_path).json
    assert "prompt" not in away
    assert away["example"].startswith("not available: data set nyu-mll/glue (rte)")


def test_show_a_run(garden: Garden) -> None:
    place = Store(garden.store)
    id_, (result, folder) = next(iter(place.results().items()))
    shown = call("show", id_[:8], "--store", garden.store, "--json").json
    assert shown.pop("folder") == str(folder)
    assert RunResult.model_validate(shown) == result
    assert f"id: {id_}\n" in call("show", id_[:8], "--store", garden.store).out
    assert call("show", "run", id_[:8], "--store", garden.store, "--json").json == shown | {"folder": str(folder)}


# run, plan, status


def test_run(garden: Garden) -> None:
    assert garden.done.code == 0, garden.done.err
    assert "2 runs in" in garden.done.err
    assert "0 done before" in garden.done.err
    assert "[2/2]" in garden.done.err
    assert "lora" in garden.done.out
    found = {r.spec.method.name: r for r, _ in Store(garden.store).results().values()}
    assert found["lora"].steps == 2
    assert found["none"].steps is None
    for one in found.values():
        assert one.data is not None
        assert (one.data.train_rows, one.data.validation_rows, one.data.test_rows) == (8, 4, 4)


def test_the_same_command_again_does_nothing_and_reports(garden: Garden) -> None:
    again = call("run", garden.grid, "--store", garden.store, "--json")
    assert again.code == 0
    assert "2 done before" in again.err
    assert [run["method"] for run in again.json["runs"]] == ["lora", "none"]
    assert set(Costs.model_fields) <= set(again.json["runs"][0])
    assert len(again.json["leaderboards"]) == 1


def test_plan(grid: Path, garden: Garden, tmp_path: Path) -> None:
    planned = call("plan", grid, "--no-costs", "--store", tmp_path / "none yet", "--json").json
    cells = [
        {"model": "pocket", "method": method, "task": task, "size": "8", "runs": 1, "done": 0}
        for task in ("pocket_sentiment", "pocket_arithmetic")
        for method in ("none", "lora")
    ]
    assert planned == {"runs": 4, "done": 0, "missing": 4, "cells": cells}
    assert not (tmp_path / "none yet").exists()
    done = call("plan", garden.grid, "--no-costs", "--store", garden.store)
    assert "2 runs, 2 done, 0 to do" in done.out
    assert done.out.count("1/1") == 2


def test_plan_with_other_models(grid: Path, tiny_models: dict[str, Path]) -> None:
    arguments = [x for name in ("llama", "qwen") for x in ("--model", tiny_models[name])]
    planned = call("plan", grid, "--no-costs", "--json", *arguments).json
    assert planned["runs"] == 8
    assert {cell["model"] for cell in planned["cells"]} == {"llama", "qwen"}


def test_status(grid: Path, garden: Garden, tmp_path: Path) -> None:
    empty = {"counts": {"ok": 0}, "failures": [], "corrupt": []}
    assert call("status", "--store", tmp_path, "--json").json == empty
    assert call("status", "--store", garden.store, "--json").json == empty | {"counts": {"ok": 2}}
    told = call("status", garden.grid, "--store", garden.store, "--json").json
    assert told["counts"] == {"ok": 2, "missing": 0}
    told = call("status", grid, "--store", garden.store, "--json").json
    assert told["counts"] == {"ok": 0, "missing": 4}


def test_a_corrupt_result_is_told(grid: Path, tmp_path: Path) -> None:
    (spec, *_) = expand(grid)
    folder = tmp_path / "results" / "machine" / "pocket" / "none" / "pocket_sentiment" / f"n8-s0-{spec.id}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    store = ("--store", tmp_path / "results")
    assert call("status", *store, "--json").json["corrupt"] == [str(folder / "result.json")]
    for verb in (("plan", "--no-costs"), ("status",)):
        told = call(*verb, grid, *store)
        assert told.code == 0
        assert told.err == (
            f"warning: {folder / 'result.json'}: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1). Its content counts as missing\n"
        )


def test_data_that_cannot_be_had_is_a_failed_row(thirsty: Garden) -> None:
    assert thirsty.done.code == 2
    reason = (
        f"data set nyu-mll/glue (rte), split 'train': not in {thirsty.store.parent / 'data'}; from the Hub: ",
        "Run with --data DIR where DIR holds nyu-mll/glue/rte/train.parquet",
    )
    lines = [line for line in thirsty.done.err.splitlines() if line.startswith("failed: rte")]
    assert len(lines) == 2
    assert all(part in line for part in reason for line in lines)
    assert "Traceback" not in thirsty.done.err
    table = Store(thirsty.store).table()
    assert table["status"].tolist() == ["failed"] * 2
    assert table["score"].isna().all()
    told = call("status", thirsty.grid, "--store", thirsty.store, "--json").json
    assert told["counts"] == {"ok": 0, "failed": 2, "missing": 0}
    assert {failure["id"] for failure in told["failures"]} == set(table["id"])
    assert all(part in failure["error"] for part in reason for failure in told["failures"])
    shown = call("status", "--store", thirsty.store)
    assert shown.code == 0
    assert all(shown.out.count(part) == 2 for part in reason)


def test_failures_are_done_again_when_asked(thirsty: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def launch(specs: Sequence[RunSpec], _place: Store, _options: Options, _watch: Watch, _after: Any) -> None:
        asked.append(len(specs))

    monkeypatch.setitem(cast("dict[str, Any]", launchers()), "local", launch)
    assert call("run", thirsty.grid, "--store", thirsty.store).code == 2
    assert call("run", thirsty.grid, "--store", thirsty.store, "--retry-failed").code == 2
    assert asked == [0, 2]


def test_an_interrupt_tells_how_to_go_on(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cast("dict[str, Any]", launchers()), "local", interrupted)
    done = call("run", grid, "--store", tmp_path / "my results")
    assert done.code == 130
    assert f"peftbench run {grid} --store '{tmp_path / 'my results'}'\n" in done.err


def test_options_arrive(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []

    def launch(_specs: Sequence[RunSpec], _place: Store, options: Options, _watch: Watch, _after: Any) -> None:
        seen.append(options)

    monkeypatch.setitem(cast("dict[str, Any]", launchers()), "local", launch)
    store = ("--store", tmp_path / "results")
    call("run", grid, *store, "--workers", "3", "--keep-adapters", "--data", tmp_path)
    assert (seen[0].workers, seen[0].keep_adapters, seen[0].data) == (3, True, tmp_path)


PLUGIN = """
from typing import Any
from peftbench.methods import Adapted, method

@method(learning_rate=1e-3)
def cli_planted(model: Any, *, depth: int = 2) -> Adapted:
    "A method of a file outside the package."
    return Adapted(model, model)
"""


def test_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(METHODS)
    monkeypatch.setattr(METHODS, "_units", dict(METHODS._units))
    plugin = tmp_path / "cli_garden.py"
    plugin.write_text(PLUGIN)
    grid = write(tmp_path / "grid.toml", ["cli-planted"], ["pocket_sentiment"])
    store = ("--store", tmp_path / "results")
    assert "unknown method 'cli-planted'" in call("plan", grid, *store).err
    for verb in (("plan", grid, "--no-costs"), ("show", "cli-planted"), ("list", "methods")):
        done = call(*verb, *store, "--plugin", plugin)
        assert done.code == 0, done.err
    assert "cli-planted" in done.out
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    for name, message in (("broken.py", "nothing_of_that_name"), ("absent.py", "not a Python file")):
        done = call("plan", grid, "--no-costs", *store, "--plugin", tmp_path / name)
        assert_one_line(done, f"plugin {tmp_path / name}: ")
        assert message in done.err


# Mistakes


def assert_one_line(done: Done, message: str) -> None:
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert message in done.err


@pytest.mark.parametrize("verb", ["run", "plan", "status", "report"])
def test_an_unknown_method(verb: str, tmp_path: Path) -> None:
    grid = write(tmp_path / "grid.toml", ["none", "lorra"], ["rte"])
    done = call(verb, grid, "--store", tmp_path / "results")
    assert_one_line(done, "grid 'grid': unknown method 'lorra': did you mean 'lora'?")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("verb", ["run", "plan", "status", "report"])
def test_a_missing_grid_file(verb: str, tmp_path: Path) -> None:
    done = call(verb, tmp_path / "nowhere.toml", "--store", tmp_path / "results")
    assert_one_line(done, f"grid {tmp_path / 'nowhere.toml'}: cannot be read: No such file or directory")


def test_a_model_that_is_not_there(grid: Path, tmp_path: Path) -> None:
    done = call("run", grid, "--model", tmp_path / "nowhere", "--store", tmp_path / "results")
    assert_one_line(done, f"model {tmp_path / 'nowhere'}: no such directory")
    done = call("run", grid, "--model", tmp_path, "--store", tmp_path / "results")
    assert_one_line(done, f"model {tmp_path}: it has no config.json")


def test_a_store_that_cannot_be_written(grid: Path) -> None:
    done = call("run", grid, "--store", grid)
    assert_one_line(done, f"store {grid}: cannot be written: File exists. Choose another --store or free disk space")


def test_an_unknown_thing_to_list() -> None:
    assert_one_line(call("list", "method"), "unknown thing to list 'method': did you mean 'methods'?")
    assert_one_line(call("list", "papers", "--json"), "unknown thing to list 'papers': ")


def test_an_unknown_thing_to_show(tmp_path: Path) -> None:
    store = ("--store", tmp_path)
    assert_one_line(
        call("show", "lorra", *store),
        "unknown model, method, task, suite, metric, grid or run 'lorra': did you mean 'lora'?",
    )
    assert_one_line(call("show", "acuracy", *store), "did you mean 'accuracy'?")
    assert_one_line(call("show", "task", "lora", *store), "unknown task 'lora': ")
    assert_one_line(call("show", "method", "lorra", *store), "unknown method 'lorra': did you mean 'lora'?")
    assert_one_line(call("show", "tusk", "sst2", *store), "unknown kind of thing to show 'tusk': did you mean 'task'?")
    assert_one_line(
        call("show", "task", *store), "show task: the name is missing; `peftbench list tasks` shows the names"
    )
    assert_one_line(
        call("show", "task", "cola", "rte", *store), "give one name: show [KIND] NAME, where KIND is one of "
    )
    assert_one_line(call("show", "run", "0123abc", *store), "no run with an id that starts with '0123abc'")
    assert_one_line(call("show", "0123abc", *store), f"store {tmp_path}: no run with an id that starts with '0123abc'")


def test_a_report_by_weights_of_ones_own(garden: Garden, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("version = 7\n[peak_memory_gb]\nconstant = 1\nexponent = 1\n")
    report = ("report", garden.grid, "--store", garden.store, "--out", tmp_path)
    done = call(*report, "--weights", mine, "--weights", "paper", "--json")
    (board,) = done.json["leaderboards"]
    assert [(one["name"], one["version"]) for one in board["weights"]] == [("mine", 7), ("paper", 1)]
    by_method = {row["method"]: row for row in board["rows"]}
    memory = by_method["lora"]["costs"]["peak_memory_bytes"] / 1e9
    value = by_method["lora"]["pscp"]["mine"]["value"]
    assert value == pytest.approx(by_method["lora"]["mean"]["mean"] / (1 + memory))
    assert board["constants"]["mine"] == {"peak_memory_gb": 1.0}
    assert {sweep["weights"] for sweep in board["sensitivity"]} <= {"mine", "paper"}
    assert "Weights of PSCP: mine v7, paper v1." in (tmp_path / "leaderboard.md").read_text()
    assert "mine v7; paper v1" in (tmp_path / "leaderboard.csv").read_text()


def test_weights_that_are_wrong(garden: Garden, tmp_path: Path) -> None:
    report = ("report", garden.grid, "--store", garden.store, "--out", tmp_path / "out")
    assert_one_line(call(*report, "--weights", "relatve"), "unknown weight set 'relatve': did you mean 'relative'?")
    assert_one_line(call(*report, "--weights", tmp_path / "no.toml"), f"weights {tmp_path / 'no.toml'}: No such file")
    assert not (tmp_path / "out").exists()


def test_a_report_of_nothing(grid: Path, tmp_path: Path) -> None:
    assert_one_line(call("report", "--store", tmp_path), "no results; run a grid first")
    assert_one_line(call("report", grid, "--store", tmp_path), "no results of this grid; run a grid first")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run de", {"demo", "demo-rates"}),
        ("run mine", {"mine.toml"}),
        ("run demo --launcher lo", {"local"}),
        ("run demo --model pocket-", {"pocket-t5"}),
        ("plan demo --device h", {"here", "h100-80gb", "h200"}),
        ("list me", {"methods", "metrics"}),
        ("show boo", {"boolq"}),
        ("advise --task boo", {"boolq"}),
    ],
)
def test_the_shell_completes_names(words: str, expected: set[str], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    asked = {
        "_PEFTBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": f"peftbench {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    code = "import sys; sys.argv[0] = 'peftbench'; from peftbench.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | asked, capture_output=True, text=True, check=False
    )
    found = set(done.stdout.split())
    assert found == expected, done.stderr
