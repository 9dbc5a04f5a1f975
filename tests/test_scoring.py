"""Metrics before and after a run: what cannot work is found first, what fails loses itself, kept answers are scored."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import peftbench
from peftbench.cli import app
from peftbench.core.registry import UserError
from peftbench.tasks import TASKS, Example
from peftbench.tasks._scoring import check_metrics

WORDS = ["good", "bad", "fine", "poor"]


def rows(**more: Any) -> list[dict[str, Any]]:
    return [{"text": f"row {i}", "verdict": WORDS[i % 2], **{k: f(i) for k, f in more.items()}} for i in range(40)]


def grid(folder: Path, **entry: Any) -> Path:
    """A grid of the untouched model on a file of the user's own."""
    data = folder / "own.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(number=lambda i: i % 6)))
    task = {"data": str(data), "fields": ["text"], "target": "verdict"} | entry
    lines = ", ".join(f"{key} = {json.dumps(value)}" for key, value in task.items())
    path = folder / "own.toml"
    path.write_text(f'methods = ["none"]\ntasks = [{{ {lines} }}]\nsizes = [8]\n')
    return path


def cli(*arguments: Any) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "peftbench", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("metric", "entry", "needs"),
    [
        ("equation_value", {}, "needs details['gold'] of every row"),
        ("multirc_em", {"labels": WORDS[:2]}, "needs details['group'] of every row"),
        ("subject_accuracy", {"labels": WORDS[:2]}, "needs details['subject'] of every row"),
        ("pass_at_1", {}, "needs details['tests'] of every row"),
        ("pearson", {"target": "number"}, "needs a scale of the task"),
        ("spearman", {"target": "number"}, "needs a scale of the task"),
        ("macro_f1", {}, "needs labels of the task"),
        ("matthews", {}, "needs labels of the task"),
        ("multirc_f1a", {"labels": WORDS[:2]}, "needs a positive label of the task"),
        ("final_number", {}, "is not available: there is no row that it can score"),
    ],
)
def test_a_metric_that_cannot_work_is_refused_when_the_grid_is_read(
    metric: str, entry: dict[str, Any], needs: str, tmp_path: Path
) -> None:
    path = grid(tmp_path, metrics=[metric], **entry)
    with pytest.raises(UserError) as refused:
        peftbench.plan(path, tmp_path / "store")
    assert f"task 'own': its metric '{metric}' {needs}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_metrics_that_can_work_are_not_refused(tmp_path: Path) -> None:
    for entry in ({"target": "number", "metrics": ["final_number", "exact_match"]}, {"labels": WORDS[:2]}, {}):
        assert peftbench.plan(grid(tmp_path, **entry), tmp_path / "store")["cells"] == 1


PLUGIN = '''
from peftbench.metrics import metric
from peftbench.tasks import Example, Source, task

@metric(rowwise=True, needs=("weight",))
def weighted(answers):
    return [100.0 * details["weight"] for details in answers.details]

@metric()
def fragile(answers):
    """Works on right answers, and not on others."""
    assert all(given in wanted for given, wanted in zip(answers.predictions, answers.references))
    return 100.0

@metric()
def endless(answers):
    return float("inf")

@metric()
def broken(answers):
    raise RuntimeError("no\\nmore")

def made(split, count):
    return ({"n": str(i)} for i in range(count or 60))

def facts(**more):
    source = Source("made", generator=made, sizes=(60, 20))
    return dict(source=source, kind="qa", instruction="?", max_new_tokens=4) | more

@task(**facts(metrics=("weighted",)))
def unweighted(row):
    return Example({"n": row["n"]}, "x")

@task(**facts(metrics=("weighted",), source=Source("late", generator=made, sizes=(60, 300))))
def late(row):
    return Example({"n": row["n"]}, "x", details={"weight": 1.0} if int(row["n"]) < 250 else {})

@task(**facts(metrics=("broken",)))
def unscored(row):
    return Example({"n": row["n"]}, "x")

@task(**facts(metrics=("exact_match", "fragile", "weighted")))
def scored(row):
    return Example({"n": row["n"]}, "x", details={"weight": 0.5, "secret": "not kept"})
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "own_units.py"
    path.write_text(PLUGIN)
    return path


def test_so_are_those_of_plugins(plugin: Path, tmp_path: Path) -> None:
    """In a process of its own, as plugins stay."""
    said = {
        "unweighted": "its metric 'weighted' needs details['weight'] of every row, which row 1 has not",
        "unscored": "its metric 'broken' fails on right answers: RuntimeError: no more",
    }
    for task in said:
        (tmp_path / f"{task}.toml").write_text(f'methods = ["none"]\ntasks = ["{task}"]\nsizes = [8]\n')
    program = f"""
import sys
from peftbench.cli import main
for task in {list(said)}:
    sys.argv = ["peftbench", "run", task + ".toml", "--plugin", {str(plugin)!r}, "--store", "store"]
    try: main()
    except SystemExit as end: print(end.code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.split() == ["2", "2"]
    for line, wanted in zip(done.stderr.strip().splitlines(), said.values(), strict=True):
        assert wanted in line
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_rows_that_were_not_seen_when_the_grid_was_read_are_looked_at_before_training(
    plugin: Path, tmp_path: Path
) -> None:
    path, store = tmp_path / "grid.toml", tmp_path / "store"
    path.write_text('methods = ["lora"]\ntasks = ["late"]\nsizes = [8]\n')
    cli("run", path, "--plugin", plugin, "--store", store, "--workers", 1)
    (file,) = store.glob("*/*/*/*/*/result.json")
    result = json.loads(file.read_text())
    assert (result["status"], result.get("steps")) == ("failed", None)
    assert "its metric 'weighted' needs details['weight'] of every row, which row" in result["error"]


@pytest.mark.parametrize(
    ("task", "example", "said"),
    [
        (
            "svamp",
            Example({}, "1 = 1", details={"gold": "five"}),
            "'equation_value' fails on right answers: ValueError",
        ),
        ("svamp", Example({}, "1 = 1"), "'equation_value' needs details['gold'] of every row, which row 1 has not"),
        (
            "stsb",
            Example({}, "7"),
            "'pearson' fails on right answers: ValueError: row 1: reference '7' is no number from 0 to 5",
        ),
        ("gsm8k", Example({}, "seven"), "'final_number' is not available: there is no row that it can score"),
        ("samsum", Example({}, "..."), "'rouge_l' is not available: there is no row that it can score"),
        ("mmlu", Example({}, "A", details={"subject": ""}), "'subject_accuracy' needs details['subject'] of every row"),
    ],
)
def test_right_answers_are_scored_first(task: str, example: Example, said: str) -> None:
    with pytest.raises(UserError) as refused:
        check_metrics(TASKS[task], [example, example])
    assert said in str(refused.value)


@pytest.mark.slow
def test_a_metric_that_fails_loses_only_itself_and_kept_answers_are_scored_again(plugin: Path, tmp_path: Path) -> None:
    path, store = tmp_path / "grid.toml", tmp_path / "store"
    path.write_text('methods = ["none"]\ntasks = ["scored"]\nsizes = [8]\n')
    common = ("--plugin", plugin, "--store", store)
    assert cli("run", path, *common, "--workers", 1)[0] == 0
    (file,) = store.glob("*/*/*/*/*/result.json")
    result = json.loads(file.read_text())
    assert result["status"] == "ok"
    assert result["scores"]["exact_match"]["value"] == 0
    assert result["scores"]["weighted"]["value"] == 50
    assert "value" not in result["scores"]["fragile"]
    assert "metric 'fragile' failed: AssertionError" in result["scores"]["fragile"]["why"]
    lines = gzip.decompress((file.parent / "predictions.jsonl.gz").read_bytes()).splitlines()
    kept = [json.loads(line) for line in lines]
    assert {json.dumps(row["details"]) for row in kept} == {'{"weight": 0.5}'}

    # By the run's own metrics, by others, and by one whose definition has changed since.
    code, out, _ = cli("score", *common, "--json")
    told = json.loads(out)
    assert (code, told["same"], [one["metric"] for one in told["scores"]]) == (1, True, list(result["scores"]))
    code, out, _ = cli(
        "score", *common, "--json", "--metric", "rouge_l", "--metric", "macro_f1", "--run", result["id"][:6]
    )
    rouge, f1 = json.loads(out)["scores"]
    assert (code, rouge["stored"], rouge["now"]["value"]) == (1, None, 0)
    assert f1["now"]["why"] == "metric 'macro_f1' needs labels of the task"
    plugin.write_text(PLUGIN.replace("100.0 * details", "80.0 * details").replace("assert all", "any"))
    code, out, _ = cli("score", *common)
    assert code == 1
    assert "DIFFERS" in out
    assert json.loads(file.read_text()) == result
    assert cli("score", *common, "--save")[0] == 0
    after = json.loads(file.read_text())
    assert [after["scores"][name]["value"] for name in result["scores"]] == [0, 100, 40]
    other = {"scores", "digest"}
    assert {k: v for k, v in after.items() if k not in other} == {k: v for k, v in result.items() if k not in other}
    assert cli("score", *common)[0] == 0


def test_the_scores_of_a_store(tmp_path: Path) -> None:
    """Answers as a run keeps them: a metric that failed then is scored now, and others are as they were."""
    from peftbench.core.spec import RunResult, Score
    from peftbench.grid.expand import expand
    from peftbench.results.store import Store
    from peftbench.tasks._scoring import facts_of_answers, kept_answers, score_task

    (spec,) = expand({"methods": ["none"], "tasks": ["multirc"], "sizes": [8]})
    examples = [Example({"x": "y"}, "true", details={"group": f"q{i // 2}", "text": "not kept"}) for i in range(4)]
    given = ["true", "true", "false", "True"]
    right = score_task(TASKS["multirc"], examples, given)
    assert right.scores["multirc_em"].value == 50
    broken = right.scores | {"multirc_em": Score(why="metric 'multirc_em' failed: KeyError: 'x'")}
    facts = facts_of_answers(TASKS["multirc"])
    result = RunResult(id=spec.id, spec=spec, status="ok", scores=broken, row_scores=right.row_scores, answers=facts)
    store, answers = Store(tmp_path), kept_answers(examples, given)
    assert [set(row) for row in answers] == [{"prediction", "references", "details"}] * 4
    assert answers[0]["details"] == {"group": "q0"}
    store.finish(store.begin(spec), result, answers)

    told = verb("--store", tmp_path, "--json", code=1)
    assert [(one["metric"], one["same"]) for one in told["scores"]] == [("multirc_f1a", True), ("multirc_em", False)]
    assert store.find(spec.id)[0] == result
    verb("--store", tmp_path, "--json", "--save")
    assert store.find(spec.id)[0] == result.model_copy(update={"scores": right.scores})
    assert verb("--store", tmp_path, "--json")["same"] is True
    asked = ("--metric", "pearson", "--metric", "accuracy", "--run", spec.id[:5])
    other = verb("--store", tmp_path, "--json", *asked, code=1)
    assert other["scores"][0]["now"]["why"] == "metric 'pearson' needs a scale of the task"
    assert other["scores"][1]["now"]["value"] == 75
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no run with answers"):
        verb("--store", tmp_path / "empty")
    with pytest.raises(UserError, match="nosuch: no such folder; give one with --store"):
        verb("--store", tmp_path / "nosuch")
    assert not (tmp_path / "nosuch").exists()


def test_what_a_metric_gives_must_be_a_number() -> None:
    from peftbench.metrics import METRICS, Answers, MetricFacts
    from peftbench.tasks._scoring import score_all

    endless, none = float("inf"), float("nan")
    for name, rowwise, value in (("endless", False, endless), ("none", False, none), ("endless_rows", True, [endless])):
        made = lambda _, value=value: value  # noqa: E731
        made.__name__ = name
        METRICS.add(made, MetricFacts(rowwise))
        try:
            scores = score_all([name, "accuracy"], Answers(["x"], [["x"]])).scores
        finally:
            METRICS._units.pop(name)
        assert (scores[name].value, scores["accuracy"].value) == (None, 100)
        assert scores[name].why == "what it gives is not a number"


def test_scores_of_another_definition_of_a_metric_are_never_averaged() -> None:
    import pandas as pd

    from peftbench.studies._run_labels import distinct

    table = pd.DataFrame([{"model": "m", "method": "x", "task": "t", "metric_version": v} for v in ("1", "2", None)])
    assert distinct(table)["task"].tolist() == ["t [1]", "t [2]", "t [1]"]
    assert set(distinct(table[1:])["task"]) == {"t"}


# ---- answers of a file, and from Python -----------------------------------------------------------------------------


def verb(*arguments: Any, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["score", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code
    return json.loads(done.stdout)


def test_a_file_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [{"prediction": "Good", "reference": "good"}, {"prediction": "bad", "references": ["good", "fine"]}]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    found = verb(path, "--metric", "accuracy", "--metric", "macro_f1", "--labels", "good,bad", "--json")["scores"]
    assert found["accuracy"]["value"] == 50
    assert found["macro_f1"]["value"] == pytest.approx(100 * (2 / 3) / 2)
    packed = tmp_path / "answers.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert verb(packed, "--metric", "accuracy", "--labels", "good,bad", "--json")["scores"]["accuracy"]["value"] == 50


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ('{"prediction": "x", "references": ["x"]}\n{', ["--metric", "accuracy"], r"line 2: "),
        ('{"prediction": "x"}', ["--metric", "accuracy"], "row 1 needs a text as 'prediction' and one or more"),
        ("[]", ["--metric", "accuracy"], "row 1 is no object"),
        ('{"prediction": 1, "references": ["x"]}', ["--metric", "accuracy"], "row 1 needs"),
        ("", ["--metric", "accuracy"], "the file has no rows"),
        ('{"prediction": "x", "reference": "x"}', [], "needs at least one --metric"),
        ('{"prediction": "x", "reference": "x"}', ["--metric", "acuracy"], "did you mean 'accuracy'"),
        ('{"prediction": "1", "reference": "1"}', ["--metric", "pearson", "--scale", "5"], "--scale 5: give the"),
    ],
)
def test_a_file_that_cannot_be_scored(content: str, options: list[str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        verb(path, *options, "--json")
    with pytest.raises(UserError, match=r"none\.jsonl: No such file or directory$"):
        verb(tmp_path / "none.jsonl", "--metric", "accuracy")


def test_a_file_whose_metric_has_no_value_is_told_by_the_exit_status(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"prediction": "yes", "reference": "yes"}\n{"prediction": "yes", "reference": "often"}\n')
    asked = ("--metric", "exact_match", "--metric", "macro_f1", "--labels", "yes,no")
    found = verb(path, *asked, "--json", code=1)["scores"]
    assert found["exact_match"]["value"] == 50
    assert "row 2: reference 'often' is not one of the labels yes, no" in found["macro_f1"]["why"]
    verb(path, "--metric", "exact_match", "--json")
    assert CliRunner().invoke(app, ["score", str(path), "--metric", "bleu"]).exit_code == 1
    assert "a metric has no value" in " ".join(CliRunner().invoke(app, ["score", "--help"]).output.split())


def test_from_python() -> None:
    assert peftbench.score("exact_match", ["a", "b"], ["a", ["c", "b"]]).value == 100
    numbers = peftbench.score("pearson", ["1", "2", "4"], ["1", "2", "4"], scale=(0, 5))
    assert numbers.value == pytest.approx(100)
    bleu = peftbench.score("bleu", ["电影很好看"], ["电影很好看"])
    assert bleu.value == pytest.approx(100)
    assert bleu.signature == "tokens of sacreBLEU: zh"
    missing = peftbench.score("equation_value", ["1 = 1"], ["1 = 1"])
    assert (missing.value, missing.why) == (
        None,
        "metric 'equation_value' needs details['gold'] of every row, which row 1 has not",
    )
    assert peftbench.score("equation_value", ["1 + 1 = 2"], ["x"], details=[{"gold": "2"}]).value == 100
    with pytest.raises(UserError, match="2 predictions, but 1 references: the numbers must be equal"):
        peftbench.score("exact_match", ["a", "b"], ["a"])
    with pytest.raises(UserError, match="1 predictions, but 2 details: the numbers must be equal"):
        peftbench.score("exact_match", ["a"], ["a"], details=[{}, {}])
    for given, right in (("ab", ["a", "b"]), (["a", "b"], "ab"), ("a", "a")):
        with pytest.raises(UserError, match="predictions and references must be lists with one entry per row"):
            peftbench.score("exact_match", given, right)
    assert "no reference has four words" in (peftbench.score("bleu", ["a b c"], ["a b c"]).why or "")
    with pytest.raises(UserError, match="did you mean 'rouge_l'"):
        peftbench.score("rouge-l", ["a"], ["a"])


def test_a_sandbox_that_is_not_there_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftbench.core.spec import Choice
    from peftbench.tasks._scoring import refusals

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PEFTBENCH_SANDBOX", raising=False)
    (line,) = refusals([Choice(name="pocket_code"), Choice(name="pocket_topic"), Choice(name="pocket_code")])
    assert line.startswith("task 'pocket_code': its metric 'pass_at_1' will be missing: no program is run: bubblewrap")
    assert os.environ["PATH"] == str(tmp_path)


def test_a_metric_of_a_script_is_scored(tmp_path: Path) -> None:
    """Its version has a digest of its code, as that of every unit of a script."""
    script = tmp_path / "script.py"
    script.write_text("""
from peftbench.metrics import metric
from peftbench.tasks._scoring import score_all
from peftbench.metrics import Answers

@metric(rowwise=True)
def own_share(answers):
    return [100.0 * (one in wanted) for one, wanted in zip(answers.predictions, answers.references)]

found = score_all(("own_share",), Answers(["a", "b"], [["a"], ["a"]])).scores["own_share"]
print(found.model_dump_json())
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["value"] == 50
    assert found["version"].startswith("1-")
