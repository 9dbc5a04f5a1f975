"""What verbs say and how they end: exit statuses, places that are not there, quantities, listings, poor terminals."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from made_store import failed, of, result, store
from peftbench.core.number_parsing import quantity
from peftbench.core.registry import UserError
from peftbench.grid.expand import expand
from peftbench.tasks import TASKS
from test_cli import assert_one_line, call

GRID = """
methods = ["none", "lora", "ia3"]
tasks = ["pocket_topic"]
sizes = [8, 100]
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "g.toml").write_text(GRID)
    return tmp_path / "g.toml"


# Exit status


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["ok"], 0),
        (["ok", "diverged", "out-of-memory", "refused"], 0),
        (["refused"], 0),
        (["ok", "failed"], 1),
        (["diverged", "timeout"], 1),
        (["failed"], 2),
    ],
)
def test_how_run_ends(statuses: list[str], code: int, grid: Path, tmp_path: Path) -> None:
    """A grid that is all done: `run` does nothing, and ends as its results are."""
    specs = expand(grid)
    made = [of(spec, status=statuses[n % len(statuses)]) for n, spec in enumerate(specs)]
    store(tmp_path / "r", *made)
    done = call("run", grid, "--store", tmp_path / "r")
    assert done.code == code, done.err
    assert f"{len(specs)} done before" in done.err


def test_the_exit_status_is_explained() -> None:
    for verb in ("run", "evaluate", "gate", "fetch"):
        assert "Exit status" in call(verb, "--help").out


# Places that are not there


@pytest.mark.parametrize(
    "words", ["status", "list runs", "report", "export --to x.csv", "show run 0123", "reproduce 0123", "status demo"]
)
def test_a_store_that_is_not_there(words: str, tmp_path: Path) -> None:
    there = tmp_path / "no store"
    assert_one_line(call(*words.split(), "--store", there), f"store {there}: no such folder")
    assert not there.exists()
    there.write_text("")
    assert_one_line(call(*words.split(), "--store", there), f"store {there}: not a folder")


@pytest.mark.parametrize(
    "words",
    [
        "run demo",
        "plan demo",
        "evaluate --adapter x --model pocket --tasks pocket_topic",
        "gate lora",
        "advise --task sst2",
        "show sst2",
        "reproduce 0123",
        "check task sst2",
        "data check",
    ],
)
def test_data_that_is_not_there(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "no data"
    assert_one_line(call(*words.split(), "--data", there), f"--data {there}: no such folder")
    monkeypatch.setenv("PEFTBENCH_DATA", str(there))
    assert_one_line(call(*words.split()), f"--data {there}: no such folder")


def test_data_of_the_api_that_is_not_there(tmp_path: Path) -> None:
    import peftbench

    with pytest.raises(UserError, match="no such folder"):
        peftbench.run("demo", tmp_path / "r", data=tmp_path / "no data")
    assert not (tmp_path / "r").exists()


# Quantities


@pytest.mark.parametrize("kind", ["bytes", "seconds", "ms", "count"])
@pytest.mark.parametrize(
    "text",
    [
        *(
            "1,5",
            "24,5",
            "1,500",
            "1.000,5",
            "-1",
            "0",
            "0.0",
            "nan",
            "inf",
            "-inf",
            "1e400",
            "1e-400",
            "",
            " ",
            ".",
            "1.2.3",
        ),
        *("1_000", "٣", "1 2", "0x10", "+-1", "1e", "1e+", "5parsecs", "1;5"),
    ],
)
def test_no_quantity_is_guessed(kind: str, text: str) -> None:
    unit = {"bytes": "GB", "seconds": "h", "ms": "ms", "count": "M"}[kind]
    for given in (text, f"{text}{unit}", f"{text} {unit}"):
        with pytest.raises(UserError, match="--most") as error:
            quantity("--most", given, kind)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("seconds", "1.5h", 5400),
        ("seconds", "90 min", 5400),
        ("bytes", "24GB", 24e9),
        ("bytes", ".5gb", 5e8),
        ("bytes", "1e3 MB", 1e9),
        ("count", "10M", 1e7),
        ("count", "1500", 1500),
        ("ms", "0.03s", 30),
    ],
)
def test_quantities(kind: str, text: str, value: float) -> None:
    assert quantity("--most", text, kind) == pytest.approx(value)


@pytest.mark.parametrize(
    "words",
    [
        *("gate lora --margin nan", "gate lora --margin inf", "gate lora --margin 0", "gate lora --size ²"),
        *("gate lora --size 1,000", "gate lora --size -1", "advise --task sst2 --within nan"),
        *("advise --task sst2 --within inf", "advise --task sst2 --time 1,5h", "advise --task sst2 --memory 24,5GB"),
    ],
)
def test_no_verb_guesses_a_number(words: str, tmp_path: Path) -> None:
    done = call(*words.split(), "--store", tmp_path / "r")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


# Exceptions and what is given on the command line


def cells(grid: Path, **options: Any) -> set[tuple[str, int | str]]:
    return {(spec.method.name, spec.size) for spec in expand(grid, **options)}


def test_exceptions_are_about_the_cells_as_the_grid_names_them(grid: Path) -> None:
    grid.write_text(GRID + '[[except]]\nmethod = "lora"\nsize = 100\n')
    assert ("lora", 100) not in cells(grid)
    # Cut to 50 rows, the cell is still the one of 100; to 5, the others of that method are there.
    assert cells(grid, limit=50) == {("none", 8), ("none", 50), ("ia3", 8), ("ia3", 50), ("lora", 8)}
    assert cells(grid, limit=5) == {("none", 5), ("ia3", 5), ("lora", 5)}
    grid.write_text(GRID + '[[except]]\nmethod = "lora"\n')
    assert cells(grid, limit=5) == {("none", 5), ("ia3", 5)}
    assert cells(grid, models=["pocket-t5"]) == cells(grid)


def test_exceptions_of_an_edition(grid: Path) -> None:
    small = '[[except]]\nmethod = "lora"\nsize = 100\n[[except]]\ntask = "glue"\n'
    small += '[size.small]\nsizes = [4]\ntasks = ["pocket_topic"]\n'
    grid.write_text(GRID.replace('["pocket_topic"]', '["pocket_topic", "glue"]') + small)
    assert {str(spec.task) for spec in expand(grid)} == {"pocket_topic"}, "a suite is meant by its name"
    assert cells(grid, size="small") == {("none", 4), ("lora", 4), ("ia3", 4)}, "a rule about what was replaced"
    grid.write_text(GRID + "[[except]]\nsize = 7\n[size.small]\nsizes = [4]\n")
    for size in (None, "small"):
        with pytest.raises(UserError, match="leaves out nothing"):
            expand(grid, size=size)


# Names


def test_what_is_called_as_ours_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("scale", "pocket", "rte"):
        (tmp_path / name).mkdir()
    done = call("plan", "scale", "--size", "pocket", "--model", "pocket", "--no-costs", "--json")
    assert done.code == 0, done.err
    assert {cell["model"] for cell in done.json["cells"]} == {"pocket"}
    assert "scale: using peftbench's ready grid; write ./scale for the file or folder here" in done.err
    assert "pocket: using peftbench's model; write ./pocket for the file or folder here" in done.err
    assert_one_line(call("plan", "./scale"), "grid ./scale: a folder; give a grid file")
    there = call("plan", "scale", "--size", "pocket", "--model", "./pocket")
    assert (there.code, there.out) == (2, "")
    assert "model pocket: it has no config.json" in there.err
    (tmp_path / "scale").rmdir()
    (tmp_path / "scale").write_text('methods = ["none"]\ntasks = ["rte"]\n')
    own = call("plan", "./scale", "--no-costs", "--json").json
    assert [(cell["task"], cell["runs"]) for cell in own["cells"]] == [("rte", 1)]


def test_names_are_suggested_once(tmp_path: Path) -> None:
    assert_one_line(call("plan", "demo", "--device", "h100"), "unknown device 'h100': did you mean 'h100-80gb'?")
    (tmp_path / "g.toml").write_text('methods = ["none"]\ntasks = ["zzzz"]\n')
    said = call("plan", tmp_path / "g.toml", "--no-costs").err
    suites = {suite for unit in TASKS for suite in unit.facts.suites}
    listed = said.partition("known: ")[2].strip().split(", ")
    assert len(listed) == len(set(listed))
    assert suites <= set(listed)


@pytest.mark.parametrize("what", ["models", "methods", "tasks", "suites", "metrics", "weights", "grids", "devices"])
def test_listings_fit_a_terminal(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = call("list", what)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) == 1 + len(call("list", what, "--json").json), "a line each"
    assert max(map(len, (line.rstrip() for line in lines))) <= 80


PYDANTIC = ("Input should", "Field required", "unable to parse", "validation error", "Extra inputs", "Value error")


@pytest.mark.parametrize(
    "line",
    [
        *(
            'sizes = ["some"]',
            "sizes = [0]",
            "seeds = [1.5]",
            "seeds = 3",
            "name = 3",
            "train = 3",
            "tune = 3",
            "eval = []",
        ),
        *('train = { learning_rate = "x" }', "train = { max_steps = 1.5 }", 'train = { precision = "fp8" }'),
        *("train = { learning_rate = nan }", "train = { learning_rate = -inf }", "eval = { test_rows = 0 }"),
        *('tune = { trials = "many" }', "tune = { }", "tune = { trials = 2, seeds = [1, 1] }", "except = 3"),
        'methods = [{ use = "lora", rank = "x" }]',
        'methods = [{ use = "lora", layers = { a = 1 } }]',
        'methods = [{ use = "peft", type = "LORA", r = "x" }]',
        'tune = { trials = 2 }\nmethods = [{ use = "lora", weight_decay = { low = -0.5, high = 0.5 } }]',
        'tasks = [{ data = "x.csv", fields = 3, target = "y" }]',
        'tasks = [{ data = "x.csv", fields = ["a"], target = "y", max_new_tokens = 0 }]',
    ],
)
def test_no_error_is_in_the_words_of_a_library(line: str, tmp_path: Path) -> None:
    held = {"methods": '["none"]', "tasks": '["pocket_topic"]'}
    given = {one.partition(" =")[0] for one in line.split("\n")}
    rest = "".join(f"{key} = {value}\n" for key, value in held.items() if key not in given)
    (tmp_path / "g.toml").write_text(f"{line}\n{rest}")
    done = call("plan", tmp_path / "g.toml", "--no-costs")
    assert_one_line(done, "g")
    assert not any(words in done.err for words in PYDANTIC), done.err


@pytest.mark.parametrize(
    "words",
    ["run demo --limit 0", "run demo --limit x", "plan demo --workers 1.5", "gate lora --seeds 1", "check task"],
)
def test_no_option_is_refused_in_the_words_of_a_library(words: str) -> None:
    done = call(*words.split())
    assert (done.code, done.out) == (2, "")
    assert not any(said in done.err for said in PYDANTIC), done.err
    assert done.err.splitlines()[-1].startswith("Error: ")


# Terminals that are not what they should be


VERBS = [
    "report",
    "status",
    "list runs",
    "list methods",
    "list tasks",
    "show lora",
    "--help",
    "run --help",
    "plan g.toml",
]


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a grid and its results."""
    root = tmp_path_factory.mktemp("poor")
    (root / "g.toml").write_text(GRID)
    made = [result(method, task, seed) for method in ("none", "lora") for task in ("sst2", "rte") for seed in (0, 1)]
    store(root / "results", *made, failed("ia3", error="— ± “x”"))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LANG": "C", "LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=" ".join,
)
def test_a_terminal_without_our_characters(verb: str, environment: dict[str, str], folder: Path) -> None:
    done = shell(f"{sys.executable} -m peftbench {verb}", folder, **environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


def test_fallbacks_keep_columns(folder: Path) -> None:
    done = shell(f"{sys.executable} -m peftbench report --out out", folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "\\u" not in text, "every character of ours has a plain one in its place"
    assert (folder / "out" / "leaderboard.md").read_text("utf-8")


@pytest.mark.parametrize("verb", ["list tasks", *(pytest.param(verb, marks=pytest.mark.slow) for verb in VERBS)])
def test_a_reader_that_goes_away(verb: str, folder: Path) -> None:
    done = shell(f"{sys.executable} -m peftbench {verb} | head -1", folder)
    assert b"Traceback" not in done.stderr, done.stderr
    assert b"Exception ignored" not in done.stderr, done.stderr
