"""The contract of every task, golden prompts on rows of our own, and the real rows where a local mirror is there."""

from pathlib import Path
from typing import Any, get_args

import pytest

from peftbench.metrics import METRICS, Answers, score
from peftbench.tasks import TASKS, Kind, Task, label, prompt, suite
from peftbench.tasks.door import example, read
from peftbench.tasks.splits import GENERATED

MIRROR = Path(__file__).parents[2] / "shared" / "data"
HUB_TASKS = [unit for unit in TASKS if unit.facts.source.generator is None]


@pytest.mark.parametrize("unit", list(TASKS), ids=lambda unit: unit.name)
def test_contract(unit: Task) -> None:
    facts = unit.facts
    assert facts.kind in get_args(Kind)
    assert facts.instruction.strip() == facts.instruction != ""
    assert facts.metrics
    assert all(name in METRICS for name in facts.metrics)
    assert facts.max_new_tokens > 0
    assert unit.doc
    assert "f1" not in facts.metrics or facts.positive in facts.labels
    assert len({name.casefold() for name in facts.labels}) == len(facts.labels)
    if facts.source.generator is None:
        assert facts.source.name.count("/") == 1
        assert facts.source.train != facts.source.test
        assert facts.paper
        assert facts.licence


@pytest.mark.parametrize("unit", list(TASKS), ids=lambda unit: unit.name)
def test_sizes(unit: Task) -> None:
    source = unit.facts.source
    assert source.sizes is None or min(source.sizes) > 0
    if source.generator:
        made = [sum(1 for _ in source.generator(split, GENERATED[split])) for split in (source.train, source.test)]
        assert source.sizes == tuple(made)


# name: (row of our own in the source's schema, prompt, target)
GOLDEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "sst2": (
        {"sentence": "a slow but rewarding film . ", "label": 1, "idx": 0},
        "Does the sentence from a film review speak well or badly of the film?\n"
        "Answer with one of: negative, positive.\n"
        "sentence: a slow but rewarding film .",
        "positive",
    ),
    "cola": (
        {"sentence": "The boat sank slow the.", "label": 0, "idx": 0},
        "Would a native speaker of English accept the sentence as grammatical?\n"
        "Answer with one of: unacceptable, acceptable.\n"
        "sentence: The boat sank slow the.",
        "unacceptable",
    ),
    "rte": (
        {"sentence1": "Ann sold her boat to Bo.", "sentence2": "Bo bought a boat.", "label": 0, "idx": 0},
        "Is sentence2 true if sentence1 is? If it is, that is entailment.\n"
        "Answer with one of: entailment, not_entailment.\n"
        "sentence1: Ann sold her boat to Bo.\n"
        "sentence2: Bo bought a boat.",
        "entailment",
    ),
    "boolq": (
        {"question": "do mills need wind", "passage": "Mill -- Some mills run on water.", "idx": 0, "label": 0},
        "Judging by the passage, is the answer to the question yes (true) or no (false)?\n"
        "Answer with one of: false, true.\n"
        "passage: Mill -- Some mills run on water.\n"
        "question: do mills need wind",
        "false",
    ),
    "ag_news": (
        {"text": "Probe lands A probe has landed on a small moon.", "label": 3},
        "In which section of a newspaper does the text belong?\n"
        "Answer with one of: World, Sports, Business, Sci/Tech.\n"
        "text: Probe lands A probe has landed on a small moon.",
        "Sci/Tech",
    ),
    "gsm8k": (
        {"question": "Bo has 2 boats with 3 oars each. How many oars?", "answer": "It is 2*3=<<2*3=6>>6 oars.\n#### 6"},
        "Solve the problem step by step. End with a line of #### and the answer as a number.\n"
        "question: Bo has 2 boats with 3 oars each. How many oars?",
        "It is 2*3=6 oars.\n#### 6",
    ),
    "e2e_nlg": (
        {"meaning_representation": "name[Old Mill], food[Dutch]", "human_reference": "Old Mill serves Dutch food."},
        "Write a short description of the restaurant that says all of these facts and no others.\n"
        "facts: name[Old Mill], food[Dutch]",
        "Old Mill serves Dutch food.",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    row, question, target = GOLDEN[name]
    made = example(TASKS[name], row)
    assert prompt(TASKS[name].facts, made.fields) == question
    assert made.target == target
    assert made.answers == (target,)


@pytest.mark.parametrize("unit", HUB_TASKS, ids=lambda unit: unit.name)
def test_every_task_of_the_hub_has_a_golden_row(unit: Task) -> None:
    assert unit.name in GOLDEN


@pytest.mark.parametrize("unit", HUB_TASKS, ids=lambda unit: unit.name)
@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_every_row_of_the_mirror(unit: Task, which: str) -> None:
    source = unit.facts.source
    rows = read(source, getattr(source, which), MIRROR).rows
    made = [example(unit, row) for row in rows]
    assert made
    assert all(one.target.strip() == one.target != "" for one in made)
    assert all(text.strip() for one in made for text in one.fields.values())
    assert all("<<" not in one.target for one in made)
    if unit.facts.labels:
        assert {one.target for one in made} == set(unit.facts.labels)


@pytest.mark.parametrize("unit", HUB_TASKS, ids=lambda unit: unit.name)
@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_the_right_answers_score_100_on_the_mirror(unit: Task) -> None:
    facts = unit.facts
    made = [example(unit, row) for row in read(facts.source, facts.source.test, MIRROR).rows[:50]]
    fold = str.casefold if facts.labels else str
    targets = [fold(one.target) for one in made]
    answers = Answers(targets, [[target] for target in targets], [fold(name) for name in facts.labels], facts.positive)
    assert {name: score(name, answers, resamples=2)[0] for name in facts.metrics} == {
        name: pytest.approx(100) for name in facts.metrics
    }


def test_suites() -> None:
    assert {"cola", "rte", "sst2"} <= set(suite("glue"))
    assert {"ag_news", "cola", "e2e_nlg"} <= set(suite("pu2023"))
    assert "ag_news" not in suite("paper")
    assert suite("unheard of") == []


@pytest.mark.parametrize("index", [-1, 2])
def test_a_number_without_a_label_is_refused(index: int) -> None:
    assert label(("no", "yes"), 1) == "yes"
    with pytest.raises(IndexError, match=f"label {index}"):
        label(("no", "yes"), index)
