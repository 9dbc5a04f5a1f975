"""A file of the user's own as a task: every format, every mistake in one line before a run, and a run to the end."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import peftbench
from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.grid.expand import expand, load_grid
from peftbench.single_run import Worker, run
from peftbench.tasks import resolve
from peftbench.tasks._file_formats import DataError, read_table
from peftbench.tasks._prompt import prompt
from peftbench.tasks._splits import RowLimits, Splits, split

ROWS = [{"text": f"note {i}: {'win money' if i % 3 else 'see you'}", "label": int(i % 3 > 0)} for i in range(40)]
ENTRY: dict[str, Any] = {"data": "my.jsonl", "fields": ["text"], "target": "label", "labels": ["ham", "spam"]}


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows in the format of the path's ending."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.jsonl", ROWS)
    return tmp_path


def specs(*entries: Mapping[str, Any], **other: Any) -> list[RunSpec]:
    return expand({"methods": ["none"], "tasks": [dict(entry) for entry in entries], **other})


def splits(entry: Mapping[str, Any], seed: int = 0) -> Splits:
    (spec,) = specs(entry)
    task = resolve(spec.task.name, spec.task.arguments)
    return split(task, spec.task.arguments, "all", seed, RowLimits(), root=None)


# ---- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "ndjson", "parquet"])
def test_every_format_gives_the_same_examples(ending: str, here: Path) -> None:
    found = splits(ENTRY | {"data": write(here / f"other.{ending}", ROWS).name})
    expected = splits(ENTRY)
    assert (found.train, found.validation, found.test) == (expected.train, expected.validation, expected.test)
    assert found.origin == "file"
    assert len(found.test) == 8
    assert len(found.validation) == 3
    assert len(found.train) == 29
    assert {e.target for e in found.train} == {"ham", "spam"}
    assert all((e.target == "spam") == ("win" in e.fields["text"]) for e in [*found.train, *found.test])


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)


@given(rows=st.lists(st.fixed_dictionaries({"a b": TEXT, "c": TEXT}), min_size=1, max_size=5))
@settings(deadline=None, max_examples=40)
def test_any_text_comes_back(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("texts")
    # In TSV a quote may be text: a cell of several lines may then read as several rows of the right width.
    several = any("\n" in cell for row in rows for cell in row.values())
    for ending in ("csv", "json", "jsonl", "parquet", *(() if several else ("tsv",))):
        assert read_table(write(folder / f"x.{ending}", rows)) == rows


def test_the_prompt_and_the_facts(here: Path) -> None:
    (spec,) = specs(ENTRY)
    task = resolve("file", spec.task.arguments)
    made = splits(ENTRY).train[0]
    assert prompt(task.facts, made.fields) == (
        f"Read this and give the label.\nAnswer with one of: ham, spam.\ntext: {made.fields['text']}"
    )
    assert task.facts.metrics == ("accuracy", "macro_f1")
    free = {"data": str(here / "my.jsonl"), "fields": ["text"], "target": "label"}
    assert resolve("file", free).facts.metrics == ("rouge_l", "exact_match")
    chosen = {"instruction": "Well?", "metrics": ["bleu"], "max_new_tokens": 5, "name": "mine"}
    facts = resolve("file", free | chosen).facts
    assert (facts.instruction, facts.metrics, facts.max_new_tokens, facts.title) == ("Well?", ("bleu",), 5, "mine")
    assert facts.labels == ()


@pytest.mark.parametrize(
    ("cell", "target"),
    [(1, "spam"), ("1", "spam"), (1.0, "spam"), ("ham", "ham"), (" spam ", "spam"), (0, "ham"), ("0", "ham")],
)
def test_a_label_by_name_or_by_place(cell: Any, target: str, here: Path) -> None:
    write(here / "one.jsonl", [{"text": f"t{i}", "label": cell} for i in range(20)])
    found = splits(ENTRY | {"data": "one.jsonl"})
    assert {e.target for e in [*found.train, *found.test]} == {target}


def test_truth_values_and_labels_that_are_numbers(here: Path) -> None:
    write(here / "truth.jsonl", [{"text": f"t{i}", "label": i % 2 == 0} for i in range(20)])
    found = splits(ENTRY | {"data": "truth.jsonl", "labels": ["false", "true"]})
    assert all((e.target == "true") == (int(e.fields["text"][1:]) % 2 == 0) for e in found.train)
    # Stars from 1 to 2 are names, not places.
    write(here / "stars.csv", [{"text": f"t{i}", "label": 1 + i % 2} for i in range(20)])
    found = splits(ENTRY | {"data": "stars.csv", "labels": ["1", "2"]})
    assert all(int(e.target) == 1 + int(e.fields["text"][1:]) % 2 for e in found.train)


# ---- which rows -----------------------------------------------------------------------------------------------------


def test_the_held_out_test_rows_are_the_same_for_every_seed(here: Path) -> None:
    entry = ENTRY | {"data": str(here / "my.jsonl")}
    one, two = splits(entry), splits(entry, seed=1)
    assert (one.test, one.validation) == (two.test, two.validation)
    assert one.train != two.train
    texts = [{e.fields["text"] for e in part} for part in (one.train, one.validation, one.test)]
    assert len(set.union(*texts)) == sum(map(len, texts)) == 40


def test_rows_with_the_same_fields_are_never_on_both_sides(here: Path) -> None:
    write(here / "twice.jsonl", [{"text": f"t{i % 20}", "label": 0} for i in range(60)])
    found = splits(ENTRY | {"data": "twice.jsonl"})
    texts = [{e.fields["text"] for e in part} for part in (found.train, found.validation, found.test)]
    assert len(set.union(*texts)) == sum(map(len, texts)) == 20


def test_a_test_file(here: Path) -> None:
    write(here / "later.csv", [{"text": "x", "label": "ham"}, {"text": "y", "label": "spam"}])
    found = splits(ENTRY | {"test": "later.csv"})
    assert {e.fields["text"] for e in found.test} == {"x", "y"}
    assert len(found.train) + len(found.validation) == 40


# ---- which run ------------------------------------------------------------------------------------------------------


def test_paths_are_of_the_grid_file_or_of_the_working_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = here / "g.toml"
    grid.write_text('methods = ["none"]\ntasks = [{ data = "my.jsonl", fields = ["text"], target = "label" }]\n')
    (direct,) = expand(load_grid("g.toml"))
    assert direct.task.arguments["data"] == str(here / "my.jsonl")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    (spec,) = expand(grid)
    assert spec.id == direct.id
    write(here / "elsewhere" / "near.jsonl", ROWS)
    grid.write_text(grid.read_text().replace("my.jsonl", "near.jsonl"))
    (spec,) = expand(grid)
    assert spec.task.arguments["data"] == str(here / "elsewhere" / "near.jsonl")


def test_a_changed_file_is_a_new_run(here: Path, tiny_models: dict[str, Path]) -> None:
    (before,) = specs(ENTRY, models=[str(tiny_models["llama"])])
    assert specs(ENTRY, models=[str(tiny_models["llama"])]) == [before]
    write(here / "my.jsonl", [*ROWS, {"text": "one more", "label": 0}])
    (after,) = specs(ENTRY, models=[str(tiny_models["llama"])])
    assert after.id != before.id
    assert after.task.version != before.task.version
    result, _ = run(before, Worker(), here, lambda _event: None)
    assert result.status == "failed"
    assert result.error == "task my has changed since the grid was read: repeat the command"


def test_names_in_tables(here: Path) -> None:
    write(here / "sst2.csv", ROWS)
    named = ENTRY | {"data": "sst2.csv", "name": "films"}
    assert [str(spec.task) for spec in specs(ENTRY, named)] == ["my", "films"]
    rule = {"except": [{"task": "films"}]}
    assert [str(spec.task) for spec in specs(ENTRY, named, **rule)] == ["my"]
    refuse(ENTRY | {"data": "sst2.csv"}, "'sst2' is the name of another task: give this one a name of its own")
    with pytest.raises(UserError, match="two tasks are called 'my': give each a name of its own"):
        specs(ENTRY, ENTRY | {"instruction": "Well?"})
    assert len(specs(ENTRY, ENTRY)) == 1


def test_a_sweep_over_files_is_a_task_each(here: Path) -> None:
    write(here / "b.csv", ROWS)
    assert [str(spec.task) for spec in specs(ENTRY | {"data": ["my.jsonl", "b.csv"]})] == ["my", "b"]


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def refuse(entry: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        specs(entry)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "mine.jsonl"}, "mine.jsonl: No such file or directory"),
        ({"data": "."}, "'' is none of the endings .csv, .tsv, .json, .jsonl, .ndjson, .parquet"),
        ({"fields": ["txt"]}, "my.jsonl 'txt': did you mean 'text'?"),
        ({"target": "lable"}, "my.jsonl 'lable': did you mean 'label'?"),
        ({"fields": []}, "fields: name at least one column to read"),
        ({"fields": ["text", "label"]}, "the target 'label' is among the fields"),
        ({"labels": ["ham"]}, "labels: at least two are needed"),
        ({"labels": ["ham", "Ham"]}, "no two may differ in case alone"),
        ({"labels": ["x", "y"], "data": "words.csv"}, "words.csv, row 1: 'ham' in label is not one of the labels x, y"),
        ({"data": "high.csv"}, "high.csv, row 13: '2' in label is not one of the labels ham, spam"),
        ({"test": "my.jsonl"}, "test is the same file as data"),
        ({"test": "none.csv"}, "none.csv: No such file or directory"),
        ({"metrics": ["f1"]}, "positive must be the label that f1 looks for: ham, spam"),
        ({"metrics": ["f1"], "positive": "eggs"}, "positive must be the label that f1 looks for: ham, spam"),
        ({"metrics": ["acuracy"]}, "unknown metric 'acuracy': did you mean 'accuracy'?"),
        ({"feilds": ["text"]}, "unknown argument of task 'file' 'feilds': did you mean 'fields'?"),
        ({"max_new_tokens": 0}, "argument 'max_new_tokens': must be above 0, not 0"),
        ({"data": "notes.txt"}, "notes.txt: '.txt' is none of the endings"),
    ],
)
def test_mistakes_in_an_entry(change: dict[str, Any], message: str, here: Path) -> None:
    (here / "notes.txt").write_text("x")
    write(here / "words.csv", [{"text": str(i), "label": "ham"} for i in range(20)])
    write(here / "high.csv", [{"text": str(i), "label": i // 12 * 2} for i in range(20)])
    refuse(ENTRY | change, message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv has 0 rows: at least 12 are needed"),
        ("a.jsonl", '{"text": "a", "label": 0}\n' * 11, "a.jsonl has 11 rows: at least 12 are needed"),
        ("a.csv", "text,label\na,0\nb\n", "row 2 has not as many cells as the first line has names"),
        ("a.csv", "text,label\na,0,x\n", "row 1 has not as many cells as the first line has names"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text"\n', "a.jsonl cannot be read: line 2: "),
        ("a.jsonl", "[1]\n", "row 1 is no object with named values"),
        ("a.json", '{"text": []}', "it is no list of objects"),
        ("a.json", "[", "a.json cannot be read: "),
        ("a.parquet", "no parquet", "a.parquet cannot be read: "),
        ("a.jsonl", '{"text": "a", "label": 0}\n' * 12 + '{"label": 0}\n', "row 13: it has no 'text'"),
        ("a.jsonl", '{"text": "a", "label": 0}\n' * 12 + '{"text": "", "label": 0}', "row 13: nothing in text"),
        ("a.jsonl", '{"text": "a", "label": null}\n' * 12, "row 1: nothing in label"),
        ("a.jsonl", '{"text": ["a"], "label": 0}\n' * 12, "row 1: 'text' holds a list, not text"),
    ],
)
def test_mistakes_in_a_file(name: str, content: str, message: str, here: Path) -> None:
    (here / name).write_text(content)
    refuse(ENTRY | {"data": name}, message)


def test_a_file_in_another_encoding(here: Path) -> None:
    (here / "a.csv").write_bytes("text,label\ncafé,0\n".encode("latin-1"))
    refuse(ENTRY | {"data": "a.csv"}, "a.csv cannot be read: 'utf-8' codec can't decode")


def test_too_few_different_rows_to_hold_out(here: Path) -> None:
    write(here / "same.jsonl", [{"text": "t", "label": 0}] * 30)
    with pytest.raises(UserError, match="30 training rows are too few to hold out"):
        splits(ENTRY | {"data": "same.jsonl"})


def test_an_error_of_a_test_file_names_it(here: Path) -> None:
    write(here / "later.csv", [{"text": "x", "label": 7}])
    refuse(ENTRY | {"test": "later.csv"}, "later.csv, row 1: '7' in label is not one of the labels ham, spam")


def test_no_ending_is_an_error_of_its_own(here: Path) -> None:
    (here / "plain").write_text("x")
    with pytest.raises(DataError, match="'' is none of the endings"):
        read_table(here / "plain")


# ---- to the end -----------------------------------------------------------------------------------------------------


def test_a_run_to_the_table(here: Path, tiny_models: dict[str, Path]) -> None:
    """Two methods on two files, one with labels and one without, by the public function and real workers."""
    write(here / "my.jsonl", [row | {"id": i} for i, row in enumerate(ROWS)])
    free = {"data": "my.jsonl", "fields": ["id", "label"], "target": "text", "name": "free", "max_new_tokens": 4}
    grid = {
        "models": [str(tiny_models["llama"])],
        "methods": ["none", "lora"],
        "tasks": [ENTRY, free],
        "sizes": [16],
        "train": {"max_steps": 2},
    }
    done = peftbench.run(grid, here / "results", workers=1)
    assert list(done["status"]) == ["ok"] * 4
    assert set(done["data"]) == {"file: my.jsonl"}
    assert peftbench.plan(grid, here / "results")["missing"] == 0
    from peftbench.studies.leaderboard import leaderboards

    (board,) = leaderboards(done)
    assert board.tasks == {"free": "rouge_l", "my": "accuracy"}
