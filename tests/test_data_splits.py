"""Which rows a run has, and what is said of them: leaks, labels that are missing, passages on two sides of a split."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import peftbench
from conftest import SHARED
from peftbench.cli import app
from peftbench.tasks import TASKS, resolve
from peftbench.tasks._split_checks import truncation
from peftbench.tasks._splits import RowLimits, Splits, split

MIRROR = SHARED / "data"
GROUPED = ("boolq", "mnli", "multirc", "piqa", "qnli", "record", "rte", "siqa", "wic", "winogrande", "wsc")


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def entry(path: Path, rows: Sequence[Mapping[str, Any]], **given: Any) -> dict[str, Any]:
    return {"data": lines(path, rows), "fields": ["text"], "target": "y", "labels": ["no", "yes"]} | given


def splits(asked: Mapping[str, Any], size: Any = "all", seed: int = 0) -> Splits:
    (spec,) = peftbench.plan({"methods": ["none"], "tasks": [dict(asked)]})["specs"]
    task = resolve(spec.task.name, spec.task.arguments)
    return split(task, spec.task.arguments, size, seed, RowLimits(), root=None)


def rows(*labels: str) -> list[dict[str, str]]:
    return [{"text": f"note {i}", "y": label} for i, label in enumerate(labels)]


# ---- in proportion --------------------------------------------------------------------------------------------------


@given(counts=st.lists(st.integers(2, 60), min_size=2, max_size=5).filter(lambda counts: sum(counts) >= 20))
@settings(max_examples=10)
def test_labels_are_in_proportion(counts: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    labels = [f"label {chr(97 + i)}" for i in range(len(counts))]
    given = [label for label, count in zip(labels, counts, strict=True) for _ in range(count)]
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    found = splits(entry(path, rows(*given), labels=labels))
    parts = {name: Counter(one.target for one in getattr(found, name)) for name in ("train", "validation", "test")}
    whole = Counter(given)
    assert sum(map(Counter.total, parts.values())) == len(given)
    for label in labels:
        share = whole[label] / len(given)
        assert parts["test"][label] >= 1
        assert parts["train"][label] >= 1
        assert abs(parts["test"][label] - share * (len(given) // 5)) <= 1
    # A smaller training set is a beginning of a larger one, and has labels in proportion as well.
    order = [one.target for one in found.train]
    for size in range(1, len(order)):
        part = Counter(order[:size])
        for label in labels:
            assert abs(part[label] - size * parts["train"][label] / len(order)) < len(labels)
    again = [one.fields["text"] for one in splits(entry(path, rows(*given), labels=labels), len(order) // 2 or 1).train]
    assert again == [one.fields["text"] for one in found.train][: len(again)]


def test_a_rare_label_is_tested_and_trained(tmp_path: Path) -> None:
    for seed in range(3):
        given = ["no"] * 48
        given[7 + seed] = given[30 + seed] = "yes"
        found = splits(entry(tmp_path / f"{seed}.jsonl", rows(*given)), seed=seed)
        assert Counter(one.target for one in found.test)["yes"] == 1
        assert Counter(one.target for one in found.train)["yes"] == 1
        assert found.remarks == ()


def test_free_text_and_rows_made_by_rule_are_taken_as_they_come(tmp_path: Path) -> None:
    """Results of the bundled tasks depend on it: these are the rows that their runs have always had."""
    given = [{"text": f"note {i}", "y": f"answer {i}"} for i in range(20)]
    found = splits(entry(tmp_path / "a.jsonl", given, labels=[]))
    assert [one.target.split()[1] for one in found.test] == ["12", "14", "5", "8"]
    assert [one.target.split()[1] for one in found.validation] == ["15"]
    assert [one.target.split()[1] for one in found.train[:4]] == ["17", "19", "11", "10"]
    found = split(resolve("pocket_topic", {}), {}, 4, 1, RowLimits(3, 3), root=None)
    assert [one.target for one in found.train] == ["table", "war", "water", "war"]
    assert [one.target for one in found.validation] == ["water", "war", "country"]
    assert [one.target for one in found.test] == ["table", "water", "water"]


@pytest.mark.parametrize("name", ["group", "normalised"])
def test_rows_of_one_group_or_of_one_text_stay_together(name: str, tmp_path: Path) -> None:
    texts = ["Good film!", "good  film", "GOOD, film.", "“good film”"]
    given = [
        {
            "text": f"{texts[i % 4]} {i // 4}" if name == "normalised" else f"t{i}",
            "y": ["no", "yes"][i % 2],
            "of": i // 4,
        }
        for i in range(80)
    ]
    found = splits(entry(tmp_path / "a.jsonl", given, **({"group": "of"} if name == "group" else {})))
    keys = {one["text"]: one["of"] for one in given}
    parts = [{keys[one.fields["text"]] for one in part} for part in (found.train, found.validation, found.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 20
    assert found.remarks == ()


# ---- passages -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
@pytest.mark.parametrize("name", GROUPED)
def test_validation_shares_no_passage_with_training(name: str) -> None:
    if name == "record":
        pytest.skip("the mirror lacks its test rows")
    found = split(TASKS[name], {}, "all", 0, RowLimits(), root=MIRROR)
    train, validation = ({one.group for one in part} for part in (found.train, found.validation))
    assert validation
    assert "" not in train | validation
    assert not train & validation


def test_questions_about_one_paragraph_stay_together(tmp_path: Path) -> None:
    """MultiRC, WSC and ReCoRD, on rows of our own."""
    letters = [chr(97 + i) * 3 for i in range(20)]
    made: dict[str, list[dict[str, Any]]] = {
        "multirc": [
            {"paragraph": f"About {one}.", "question": f"Who {q}?", "answer": f"{q}{a}", "label": (q + a) % 2}
            for one in letters
            for q in range(3)
            for a in range(2)
        ],
        "record": [
            {"passage": f"About {one}.", "query": f"@placeholder {q}", "entities": [one], "answers": [one]}
            for one in letters
            for q in range(4)
        ],
        "wsc.fixed": [
            {
                "text": f"When {one} saw Bob he ran to {place}.",
                "span1_index": span,
                "span2_index": 4,
                "span1_text": one if span == 1 else "Bob",
                "span2_text": "he",
                "label": int(span == 1),
            }
            for one in letters
            for place in ("Rome", "Bonn")
            for span in (1, 3)
        ],
    }
    for config, its in made.items():
        for name in ("train", "validation"):
            path = tmp_path / "aps" / "super_glue" / config / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(its), path)
        task = resolve(config.removesuffix(".fixed"), {})
        found = split(task, {}, "all", 0, RowLimits(), root=tmp_path)
        own = [
            {next(word for word in letters if word in str(dict(one.fields))) for one in part}
            for part in (found.train, found.validation)
        ]
        assert len(own[1]) >= 2, config
        assert not own[0] & own[1], config
        # The test of these is made of the same passages, and that is said.
        assert any("are training rows too" in remark for remark in found.remarks), config


# ---- what is said ---------------------------------------------------------------------------------------------------

BALANCED = rows(*["no", "yes"] * 20)


@pytest.mark.parametrize(
    ("train", "test", "remark"),
    [
        (
            BALANCED,
            BALANCED[:4],
            "4 of 4 test rows (100.0 %) are training rows too, to the letter; {n} among those trained on",
        ),
        (
            BALANCED,
            [{"text": f"NOTE:  {i}!", "y": "no"} for i in range(2)] + [{"text": "other", "y": "yes"}],
            "2 of 3 test rows (66.7 %) are training rows too, 0 to the letter, the others but for case and punctuation",
        ),
        (BALANCED, [{"text": "other", "y": "no"}], "no test row has the label 'yes', the positive one"),
        (BALANCED, [{"text": "other", "y": "yes"}], "no test row has the label 'no'"),
        (
            rows(*["no"] * 40),
            [{"text": "a", "y": "yes"}, {"text": "b", "y": "no"}],
            "all 36 training rows have the label 'no'",
        ),
        (rows(*["no", "maybe"] * 20), [{"text": "a", "y": "yes"}], "no training row has the label 'yes'"),
        (
            rows(*["No"] * 2, *["no", "yes"] * 19),
            [{"text": "a", "y": "yes"}],
            "y is 'No' in 2 of the rows, read as 'no'",
        ),
    ],
)
def test_what_is_wrong_with_the_rows_is_said(
    train: list[dict[str, str]], test: list[dict[str, str]], remark: str, tmp_path: Path
) -> None:
    later = lines(tmp_path / "later.jsonl", test)
    labels = ["no", "maybe", "yes"] if any(row["y"] == "maybe" for row in train) else ["no", "yes"]
    found = splits(entry(tmp_path / "a.jsonl", train, test=later, metrics=["f1"], positive="yes", labels=labels))
    trained = {one.fields["text"].casefold() for one in found.train}
    n = sum(
        " ".join(one.fields["text"].casefold().replace(":", " ").replace("!", "").split()) in trained
        for one in found.test
    )
    assert any(remark.format(n=n) in said for said in found.remarks), found.remarks


@pytest.mark.parametrize(
    "texts", [("2 + 3", "2 - 3"), ("a*b", "a/b"), ("-5", "5"), ("x < y", "x > y"), ("?", "!"), ("😀", "😢")]
)
def test_texts_that_differ_in_signs_that_count_are_no_repeats(texts: tuple[str, str], tmp_path: Path) -> None:
    one, other = texts
    later = lines(tmp_path / "later.jsonl", [{"text": other, "y": "no"}, {"text": "more", "y": "yes"}])
    found = splits(entry(tmp_path / "a.jsonl", [*BALANCED, *({"text": one, "y": "no"} for _ in range(9))], test=later))
    assert found.remarks == ()


def test_a_text_that_stands_for_nothing_is_asked_about(tmp_path: Path) -> None:
    given = [{"text": f"t{i}", "y": "nan" if i == 3 else f"answer {i}"} for i in range(12)]
    (said,) = splits(entry(tmp_path / "a.jsonl", given, labels=[])).remarks
    assert said == "a.jsonl: y is 'nan' in 1 of the rows: is a value missing?"


def test_run_and_report_say_it(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Repeated rows and cut ones, in the summary of `run`, in `report`, in its files and in the table."""
    long = [row | {"text": f"{row['text']} {'word ' * 90}"} for row in BALANCED]
    later = lines(tmp_path / "later.jsonl", long[:6])
    asked = entry(tmp_path / "mine.jsonl", long, test=later)
    grid = tmp_path / "grid.toml"
    task = "\n".join(f"{name} = {json.dumps(value)}" for name, value in asked.items())
    grid.write_text(
        f'models = ["{tiny_models["llama"]}"]\nmethods = ["none"]\n[train]\nmax_length = 64\n[[tasks]]\n{task}\n'
    )
    store = tmp_path / "results"
    done = CliRunner().invoke(app, ["run", str(grid), "--store", str(store), "--workers", "1"])
    assert done.exit_code == 0, done.output
    report = CliRunner().invoke(app, ["report", str(grid), "--store", str(store)])
    files = [(store / "report" / name).read_text() for name in ("leaderboard.md", "index.html")]
    for said in (done.output, report.output, *files):
        text = " ".join(said.replace("\\_", "_").split())
        assert "6 of 6 test rows (100.0 %) are training rows too, to the letter" in text
        assert "warning: 46 of 46 rows (100.0 %) were shortened to max_length = 64" in text
    (row,) = peftbench.table(store).to_dict("records")
    assert row["truncated_share"] == 1.0
    assert len(json.loads(row["data_remarks"])) >= 2


def test_a_few_cut_rows_are_no_warning() -> None:
    assert truncation(0, 100, 64) == ()
    assert truncation(4, 100, 64) == ("4 of 100 rows (4.0 %) were shortened to max_length = 64",)
    assert truncation(5, 100, 64)[0].startswith("warning: ")
