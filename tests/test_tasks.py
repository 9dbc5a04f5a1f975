"""The contract of every task, golden prompts on rows of our own, and the real rows where a local mirror is there."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from golden_prompts import GOLDEN
from peftbench.metrics import METRICS, Answers, score_metric
from peftbench.tasks import TASKS, Example, Kind, Task, label, resolve, suite
from peftbench.tasks._loading import DataError, example_of, read_rows
from peftbench.tasks._prompt import prompt
from peftbench.tasks._splits import GENERATED, RowLimits, split

MIRROR = Path(__file__).parents[2] / "shared" / "data"
POSITIVE = {"f1", "multirc_f1a"}
"""Metrics of one label."""
HUB_TASKS = [unit for unit in TASKS if unit.facts.source.published]


@pytest.mark.parametrize("unit", list(TASKS), ids=lambda unit: unit.name)
def test_contract(unit: Task) -> None:
    facts = unit.facts
    assert facts.kind in get_args(Kind)
    assert facts.instruction.strip() == facts.instruction != ""
    assert facts.metrics
    assert all(name in METRICS for name in facts.metrics)
    assert facts.max_new_tokens > 0
    assert unit.doc
    assert (facts.positive in facts.labels) == bool(POSITIVE & {*facts.metrics})
    assert (facts.scale is not None) == (facts.kind == "regression")
    assert len({name.casefold() for name in facts.labels}) == len(facts.labels)
    if unit in HUB_TASKS:
        assert facts.source.name.count("/") == 1
        assert facts.source.train != facts.source.test
        assert facts.paper
        assert facts.licence


@pytest.mark.parametrize("unit", list(TASKS), ids=lambda unit: unit.name)
def test_sizes(unit: Task) -> None:
    source = unit.facts.source
    assert source.sizes is None or min(source.sizes) > 0
    if source.generator:
        made = [sum(1 for _ in source.generator(name, GENERATED[name])) for name in (source.train, source.test or "")]
        assert source.sizes == tuple(made)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    row, question, target = GOLDEN[name]
    made = example_of(TASKS[name], row)
    assert prompt(TASKS[name].facts, made.fields) == question
    assert made.target == target
    assert target in made.answers or name == "stsb"


@pytest.mark.parametrize("unit", HUB_TASKS, ids=lambda unit: unit.name)
def test_every_task_of_the_hub_has_a_golden_row(unit: Task) -> None:
    assert unit.name in GOLDEN


@pytest.mark.parametrize("unit", HUB_TASKS, ids=lambda unit: unit.name)
@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_every_row_of_the_mirror(unit: Task, which: str) -> None:
    if not mirrored(unit, which):
        with pytest.raises(DataError, match=f"split '{getattr(unit.facts.source, which)}': not in .* --data DIR"):
            mirror(unit, which)
        return
    made = mirror(unit, which)
    assert made
    assert all(one.target.strip() == one.target != "" for one in made)
    assert all(text.strip() for one in made for text in one.fields.values())
    assert unit.facts.kind == "code" or all("<<" not in one.target for one in made)
    assert len({tuple(one.fields) for one in made}) == 1 or unit.name == "apps"
    assert not any(one.choices for one in made) or all(one.target in one.choices for one in made)
    if unit.facts.labels:
        assert {one.target for one in made} == set(unit.facts.labels)


def mirror(unit: Task, which: str) -> list[Example]:
    source = unit.facts.source
    return [example_of(unit, row) for row in read_rows(source, getattr(source, which), MIRROR).rows]


def mirrored(unit: Task, which: str) -> bool:
    source = unit.facts.source
    return (MIRROR / source.name / (source.config or "default") / f"{getattr(source, which)}.parquet").is_file()


@pytest.mark.parametrize("unit", HUB_TASKS, ids=lambda unit: unit.name)
@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_the_right_answers_score_100_on_the_mirror(unit: Task) -> None:
    facts = unit.facts
    made = mirror(unit, "test" if mirrored(unit, "test") else "train")[:50]
    fold = str.casefold if facts.labels else str
    answers = Answers(
        predictions=[fold(one.target) for one in made],
        references=[[fold(answer) for answer in one.answers] for one in made],
        labels=[fold(name) for name in facts.labels],
        positive=facts.positive,
        scale=facts.scale,
        details=[one.details for one in made],
    )
    # Some right answers of a data set are no Python.
    names = [name for name in facts.metrics if name != "syntax_valid"]
    # One decimal is asked for and the right values have three, which costs a tenth of a point.
    assert {name: score_metric(name, answers, resamples=2)[0] for name in names} == {
        name: pytest.approx(100, abs=0.2 if facts.scale else 1e-6) for name in names
    }


SUITES = {
    "glue": "cola mnli mrpc qnli qqp rte sst2 stsb",
    "superglue": "boolq cb copa multirc record rte wic wsc",
    "reasoning": "hellaswag mmlu openbookqa piqa siqa winogrande",
    "math": "gsm8k math_qa svamp",
    "pu2023": "ag_news cola e2e_nlg samsum",
    "code": "apps codealpacapy conala",
    "generation": "codealpacapy conala e2e_nlg samsum xsum",
}


@pytest.mark.parametrize("name", SUITES)
def test_suites(name: str) -> None:
    assert suite(name) == SUITES[name].split()


def test_the_suite_of_the_paper() -> None:
    parts = {name for part in ("glue", "superglue", "reasoning", "math", "code") for name in suite(part)}
    assert parts == set(suite("paper"))
    assert len(parts) == 27
    assert suite("unheard of") == []


@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_the_other_test_of_mnli() -> None:
    facts = resolve("mnli", {"matched": False}).facts
    assert facts.source.test == "validation_mismatched"
    with pytest.raises(DataError, match=r"glue \(mnli\), split 'validation_mismatched': .* --data DIR"):
        split(resolve("mnli", {"matched": False}), {"matched": False}, 8, 0, RowLimits(4, 4), root=MIRROR)
    assert replace(facts, source=TASKS["mnli"].facts.source) == resolve("mnli", {}).facts
    assert replace(resolve("mnli", {}).facts, version=TASKS["mnli"].facts.version) == TASKS["mnli"].facts


@pytest.mark.parametrize("index", [-1, 2])
def test_a_number_without_a_label_is_refused(index: int) -> None:
    assert label(("no", "yes"), 1) == "yes"
    with pytest.raises(IndexError, match=f"label {index}"):
        label(("no", "yes"), index)


@pytest.mark.parametrize(("given", "first", "name"), [(0, 0, "no"), ("1", 0, "yes"), ("1", 1, "no"), ("2", 1, "yes")])
def test_a_label_in_digits(given: int | str, first: int, name: str) -> None:
    assert label(("no", "yes"), given, first) == name


@pytest.mark.parametrize("given", ["", "-1", "0", "3", "yes", " 1", "1.0", "\u00b2", "\u0661", "True"])
def test_a_text_without_a_label_is_refused(given: str) -> None:
    with pytest.raises(IndexError, match="has no name"):
        label(("no", "yes"), given, first=1)
