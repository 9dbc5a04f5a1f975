"""Units of one's own: from a template, checked, as a plugin file and as an installed package."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from peftbench.checks import check_task, scaffold, smoke_training
from peftbench.checks.static_checks import Finding
from peftbench.core.registry import load_plugin
from peftbench.tasks import TASKS, Example, Row, Source, TaskFacts, resolve
from peftbench.tasks._splits import GENERATED, RowLimits, split
from test_cli import Done, assert_one_line, call

SOURCE = Path(__file__).parents[1] / "src"


# ---- peftbench new --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid(path: Path, model: Path, methods: list[Any], tasks: list[str]) -> Path:
    path.write_text(
        f'models = ["{model}"]\nmethods = {json.dumps(methods)}\ntasks = {json.dumps(tasks)}\nsizes = [8]\n'
        "[train]\nmax_steps = 2\nvalidation_rows = 4\n[eval]\ntest_rows = 4\n"
    )
    return path


def test_a_new_task_and_a_new_method_run_at_once(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    assert call("new", "task", "fresh_task").out == "wrote fresh_task.py; use it with --plugin fresh_task.py\n"
    assert call("new", "method", "fresh-method", "--to", tmp_path / "m.py").code == 0
    file = grid(tmp_path / "g.toml", tiny_models["llama"], ["none", "fresh-method"], ["fresh_task"])
    done = call("run", file, "--plugin", "fresh_task.py", "--plugin", "m.py", "--workers", "1", "--json")
    assert done.code == 0, done.err
    assert [(run["method"], run["task"], run["status"]) for run in done.json["runs"]] == [
        ("fresh-method", "fresh_task", "ok"),
        ("none", "fresh_task", "ok"),
    ]


@pytest.mark.slow
def test_a_new_method_passes_its_own_check_on_both_shapes() -> None:
    """The two commands that a newcomer gives."""
    assert call("new", "method", "checked-method").code == 0
    done = call("check", "method", "checked-method", "--plugin", "checked_method.py", "--json")
    assert done.code == 0, done.out
    assert done.json["problems"] == 0
    for shape in ("decoder", "encoder-decoder"):
        found = {finding["about"]: finding for finding in done.json["findings"][shape]}
        assert found["trains"]["facts"]["trainable_parameters"] > 0
        assert "saved" in found


def test_a_new_method_trains_the_layers_of_either_shape(tmp_path: Path) -> None:
    from test_placement import build, put

    load_plugin(scaffold.write_template("method", "either-shape", tmp_path / "either_shape.py"))
    for kind in ("llama", "switch_transformers"):
        adapted = put(build(kind), {"use": "either-shape", "layers": [0]})
        names = [name for name, p in adapted.model.named_parameters() if p.requires_grad]
        assert names
        assert all(re.search(r"(layers|block)\.0\.", name) for name in names)


def test_the_template_says_every_fact(tmp_path: Path) -> None:
    text = scaffold.write_template("task", "said_task", tmp_path / "said_task.py").read_text()
    asked = text[text.index("@task(") : text.index("def said_task")]
    own = {
        "source",
        "kind",
        "instruction",
        "labels",
        "metrics",
        "max_new_tokens",
        "version",
        "paper",
        "licence",
        "suites",
    }
    for name in own:
        assert f"    {name}=" in asked
    assert own < set(TaskFacts.__dataclass_fields__)
    for line in asked.splitlines()[1:-1]:
        assert line.lstrip().startswith("#") or "=" in line


def test_the_rows_of_the_template_are_as_the_pocket_rules_ask(tmp_path: Path) -> None:
    load_plugin(scaffold.write_template("task", "ruled_task", tmp_path / "ruled_task.py"))
    found = split(TASKS["ruled_task"], {}, "all", 0, RowLimits(), root=None)
    words = [
        {w for e in part for w in e.fields["text"].split()} for part in (found.train, found.validation, found.test)
    ]
    frame = {"I", "think", "They", "say", "To", "be", "honest,", "After", "all,", "the", "was"}
    assert set.intersection(*words) == frame
    assert not (words[0] & words[2]) - frame
    assert len(set(Counter(e.target for e in found.test).values())) == 1


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept_task.py").write_text("mine")
    assert_one_line(call("new", "task", "kept_task"), "kept_task.py is there already and is not overwritten")
    assert (tmp_path / "kept_task.py").read_text() == "mine"
    assert_one_line(
        call("new", "task", "kept_task", "--to", tmp_path / "no" / "x.py"), "cannot be written: No such file"
    )


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("task", "Big", "a name has small letters, figures and '_', a letter first"),
        ("task", "with-dash", "a name has small letters"),
        ("task", "../up", "a name has small letters"),
        ("task", "1st", "a name has small letters"),
        ("task", "class", "a name has small letters"),
        ("task", "sst2", "there is a task 'sst2' already: choose another name"),
        ("method", "prefix-tuning", "there is a method 'prefix-tuning' already"),
        ("method", "prefix_tuning", "there is a method 'prefix-tuning' already"),
    ],
)
def test_names(kind: str, name: str, message: str, tmp_path: Path) -> None:
    assert_one_line(call("new", kind, name), message)
    assert not list(tmp_path.iterdir())


# ---- peftbench check ------------------------------------------------------------------------------------------------


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def checked(rows: list[dict[str, Any]], test: list[dict[str, Any]] | None = None, **asked: Any) -> dict[str, Finding]:
    """What is found of rows of one's own, without training."""
    data = write_rows(Path("rows.jsonl").absolute(), rows)
    more = {"test": str(write_rows(Path("test.jsonl").absolute(), test))} if test else {}
    arguments = {"data": str(data), "fields": ["text"], "target": "label", **more, **asked}
    return {finding.about: finding for finding in check_task("file", arguments, train=False).findings}


GOOD = [{"text": f"row {i} of many", "label": "ab"[i % 2]} for i in range(60)]


def test_nothing_wrong() -> None:
    found = checked(GOOD, labels=["a", "b"])
    assert list(found) == ["rows", "splits", "answers", "labels", "leaks", "prompts"]
    assert not any(finding.problem for finding in found.values())
    assert found["splits"].facts == {"train": 44, "validation": 4, "test": 12}
    assert found["rows"].facts == {"rows": 60, "unusable": 0}
    assert found["leaks"].facts["test_exact"] == {"rows": 0, "share": 0}


def test_leaks_are_counted_to_the_letter_and_but_for_case_and_signs() -> None:
    other = [{"text": f"other {i}", "label": "a"} for i in range(6)]
    checked(GOOD, other, labels=["a", "b"])
    one, two, *_ = sorted(train_texts())
    found = checked(GOOD, [{"text": one, "label": "b"}, {"text": f"{two.upper()} !", "label": "a"}, *other])
    assert found["leaks"].facts["test_exact"] == {"rows": 1, "share": 1 / 8}
    assert found["leaks"].facts["test_normalised"] == {"rows": 2, "share": 2 / 8}
    assert found["leaks"].facts["validation_normalised"] == {"rows": 0, "share": 0}
    assert found["leaks"].problem


def train_texts() -> set[str]:
    """What is trained on of the rows that `checked` wrote."""
    arguments = {"data": str(Path("rows.jsonl").absolute()), "fields": ["text"], "target": "label"}
    task = resolve("file", arguments | {"test": str(Path("test.jsonl").absolute())})
    found = split(task, arguments, "all", 0, RowLimits(), root=None)
    return {e.fields["text"] for e in found.train}


def test_a_label_that_is_never_trained() -> None:
    rows = [{"text": f"row {i}", "label": "a"} for i in range(40)]
    found = checked(rows, [{"text": "x", "label": "c"}, {"text": "y", "label": "a"}], labels=["a", "b", "c"])
    assert found["labels"].problem
    assert "never in training: b, c" in found["labels"].said
    assert found["labels"].facts["test"] == {"a": 0.5, "b": 0, "c": 0.5}


def test_answers_that_would_be_cut() -> None:
    rows = [{"text": f"row {i}", "label": "one two three four" if i % 2 else "one"} for i in range(40)]
    found = checked(rows, max_new_tokens=3)
    assert found["answers"].problem
    assert found["answers"].facts["longest"] == 4 + 1
    assert 0 < found["answers"].facts["too_long"] < 40
    assert checked(rows, max_new_tokens=4)["answers"].problem
    assert not checked(rows, max_new_tokens=5)["answers"].problem


def test_prompts_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "word " * (700 if i % 4 == 0 else 7) + str(i), "label": "a"} for i in range(40)]
    found = checked(rows)
    assert found["prompts"].facts["cut"] == pytest.approx(0.25)
    assert found["prompts"].facts["longest"] > 700
    assert not found["prompts"].problem
    assert "25.0 % do not fit into max_length = 512" in found["prompts"].said
    for name in GENERATED:
        monkeypatch.setitem(GENERATED, name, 40)
    (whole,) = [f for f in check_task("long_needle", {"words": 600}, train=False).findings if f.about == "prompts"]
    assert whole.problem
    assert whole.said.endswith("and may not be shortened")


def registered(monkeypatch: pytest.MonkeyPatch, name: str, rows: Any, make: Any, **facts: Any) -> None:
    """A task that is there for one test."""
    source = Source(name, generator=rows, validation="validation")
    settings: dict[str, Any] = {"kind": "qa", "instruction": "?", "metrics": ("exact_match",), "max_new_tokens": 4}
    make.__name__ = name
    assert name not in TASKS
    monkeypatch.setattr(TASKS, "_units", dict(TASKS._units))
    TASKS.add(make, TaskFacts(source=source, **settings | facts))


def test_rows_that_differ_when_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def rows(split: str, count: int) -> list[Row]:
        calls.append(split)
        return [{"n": i + len(calls)} for i in range(min(count, 20))]

    registered(monkeypatch, "restless", rows, lambda row: Example({"n": str(row["n"])}, "x"))
    (finding,) = check_task("restless", {}).findings
    assert finding == Finding("rows", "split 'train' has other rows when it is read again", True)


def test_rows_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(split: str, count: int) -> list[Row]:
        return [{"n": i if split == "train" else i % 5} for i in range(min(count, 30))]

    def make(row: Row) -> Example:
        return Example({"n": str(row["n"])}, ("a", "b", "c")[row["n"] // 10])

    registered(monkeypatch, "partial", rows, make, labels=("a", "b"), kind="classification")
    (finding,) = check_task("partial", {}).findings
    assert finding.problem
    assert finding.facts == {"rows": 90, "unusable": 10}
    assert finding.said.startswith("10 of 90 cannot be used; the first is split 'train', row 21: task 'partial'")
    assert finding.said.endswith("'c' is not one of the labels a, b")


def test_examples_that_differ_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make(_row: Row) -> Example:
        made.append(1)
        return Example({"n": str(len(made))}, "x")

    registered(monkeypatch, "moody", lambda _split, count: [{"n": i} for i in range(min(count, 20))], make)
    (finding,) = check_task("moody", {}).findings
    assert finding.said == "split 'train', row 1 is another example the second time"


def test_too_few_rows_to_split_is_a_problem_of_the_task() -> None:
    found = checked([{"text": "same", "label": "a"}] * 20)
    assert list(found) == ["rows", "splits"]
    assert found["splits"].problem
    assert "too few to hold out" in found["splits"].said


def check(*arguments: str | Path) -> Done:
    return call("check", "task", *arguments)


def test_exit_status_and_json(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "own.jsonl", GOOD)
    own = ("file", "--set", f"data={data}", "--set", 'fields=["text"]', "--set", "target=label", "--no-train")
    fine = check(*own, "--set", 'labels=["a", "b"]')
    assert (fine.code, fine.err) == (0, "")
    assert fine.out.count("\n-> ") == 3
    assert fine.out.endswith("own: no problems\n")
    short = check(*own, "--set", "max_new_tokens=2", "--set", "labels=[]", "--json")
    assert (short.code, short.json["problems"]) == (0, 0)
    cut = write_rows(tmp_path / "cut.jsonl", [row | {"label": "far too long"} for row in GOOD])
    bad = check(*own, "--set", f"data={cut}", "--set", "max_new_tokens=1", "--json")
    assert bad.code == 1
    assert bad.json["problems"] == 1
    assert [finding["about"] for finding in bad.json["findings"] if finding["problem"]] == ["answers"]
    assert len(bad.json["shown"]) == 3
    told = check(*own, "--set", f"data={cut}", "--set", "max_new_tokens=1")
    assert (
        "PROBLEM  answers   at most 4 tokens with the end, 1 are allowed; 60 of 60 are too long and would be cut"
        in told.out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sst22"], "unknown task 'sst22': did you mean 'sst2'?"),
        (["long-context"], "'long-context' with these arguments is more than one task: check one at a time"),
        (["long_needle", "--set", "word=3"], "unknown argument of task 'long_needle' 'word': did you mean 'words'?"),
        (["long_needle", "--set", "words"], "--set words: give KEY=VALUE"),
        (["rte", "--data", "."], "data set nyu-mll/glue (rte), split 'train': not in ."),
        (["file"], "task 'file', argument 'data': is missing"),
    ],
)
def test_what_cannot_be_checked(arguments: list[str], message: str) -> None:
    assert_one_line(check(*arguments), message)


def labelled(split: str, count: int) -> list[Row]:
    return [{"word": f"{split} {i}", "label": i * 7919 % 13 % 2} for i in range(min(count, 200))]


def told(row: Row) -> Example:
    """The answer stands in the row."""
    return Example({"word": "good good" if row["label"] else "bad bad", "n": row["word"]}, "ab"[row["label"]])


def coin(row: Row) -> Example:
    """The answer cannot be known."""
    return Example({"word": row["word"]}, "ab"[row["label"]])


@pytest.mark.slow
def test_training_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "quick", labelled, coin, labels=("a", "b"), metrics=("accuracy",))
    monkeypatch.setattr(smoke_training, "TOKENS", 500)
    monkeypatch.setattr(smoke_training, "TEST_ROWS", 8)
    *_, last = check_task("quick", {}).findings
    assert (last.about, last.problem) == ("training", False)
    assert last.facts["metric"] == "accuracy"
    assert last.facts["steps"] == int(500 / (smoke_training.BATCH * mean_tokens("quick")))
    assert last.said.startswith(f"accuracy {last.facts['untouched']:.1f} untouched, {last.facts['trained']:.1f} after ")
    monkeypatch.setattr(smoke_training, "LORA", {"use": "prompt-tuning", "tokens": 9000})
    *_, last = check_task("quick", {}).findings
    assert last.problem
    assert re.match(r"prompt-tuning: refused: the longest row needs \d+ positions .* 9000 virtual tokens", last.said)


def mean_tokens(name: str) -> float:
    from peftbench.checks import static_checks

    return static_checks.check_tokens(TASKS[name], split(TASKS[name], {}, "all", 0, RowLimits(), root=None))[2]


@pytest.mark.slow
@pytest.mark.parametrize("make", [told, coin], ids=["told", "coin"])
def test_training_says_whether_it_is_learned(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a problem of the task."""
    registered(monkeypatch, make.__name__, labelled, make, labels=("a", "b"), metrics=("accuracy",))
    *_, last = check_task(make.__name__, {}).findings
    assert (last.problem, last.facts["learned"]) == (False, make is told), last


# ---- an installed package -------------------------------------------------------------------------------------------

PACKAGE = '''
from peftbench.methods import Adapted, method
from peftbench.tasks import Example, Source, task

def rows(split, count):
    return [{"text": f"{split} row {i}", "label": i % 2} for i in range(min(count, 100))]

@task(source=Source("outside-rows", generator=rows), kind="classification", instruction="Odd or even?",
      labels=("even", "odd"), metrics=("accuracy",), max_new_tokens=4, suites=("outside",))
def outside_task(row, *, shout: bool = False) -> Example:
    """A task of another package."""
    return Example({"text": row["text"].upper() if shout else row["text"]}, ("even", "odd")[row["label"]])

@method(learning_rate=1e-3)
def outside_method(model, *, layer: int = -1) -> Adapted:
    """A method of another package."""
    model.model.layers[layer].requires_grad_(True)
    return Adapted(model, model)
'''


def install(site: Path, code: str = PACKAGE) -> Path:
    """A package as pip would leave it: the module and its metadata, with entry points."""
    site.mkdir()
    (site / "outside.py").write_text(code)
    facts = site / "outside-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[peftbench.tasks]\nit = outside\n\n[peftbench.methods]\nit = outside\n")
    return site


def peftbench(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(SOURCE), str(site)])
    command = [sys.executable, "-m", "peftbench", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_package_with_entry_points(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    site = install(tmp_path / "site")
    for what, name in (("tasks", "outside_task"), ("methods", "outside-method")):
        listed = json.loads(peftbench(site, "list", what, "--json").stdout)
        assert name in [unit["name"] for unit in listed]
        assert "sst2" in [unit["name"] for unit in listed] or "lora" in [unit["name"] for unit in listed]
    file = grid(tmp_path / "g.toml", tiny_models["llama"], ["none", "outside-method"], ["outside"])
    planned = json.loads(peftbench(site, "plan", file, "--json").stdout)
    assert [(cell["method"], cell["task"]) for cell in planned["cells"]] == [
        ("none", "outside_task"),
        ("outside-method", "outside_task"),
    ]
    done = peftbench(site, "run", file, "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert [(run["method"], run["task"], run["status"]) for run in json.loads(done.stdout)["runs"]] == [
        ("none", "outside_task", "ok"),
        ("outside-method", "outside_task", "ok"),
    ]


def test_a_package_that_cannot_be_imported(tmp_path: Path) -> None:
    done = peftbench(install(tmp_path / "site", "import nothing_of_this_name"), "list", "tasks")
    assert done.returncode == 2
    assert done.stderr == (
        "error: package outside: entry point 'it' of peftbench.tasks: ModuleNotFoundError: No module named "
        "'nothing_of_this_name'\n"
    )


def test_a_package_that_takes_a_name(tmp_path: Path) -> None:
    done = peftbench(install(tmp_path / "site", PACKAGE.replace("outside_task", "sst2")), "list", "tasks")
    assert done.returncode == 2
    assert "two tasks are called 'sst2': in " in done.stderr
    assert "outside" in done.stderr
