"""The tasks with programs: their fields, what becomes of empty columns, and right answers that pass."""

import itertools
import json
import random
from typing import Any

import pytest

from conftest import SHARED
from peftbench import sandbox
from peftbench.metrics import METRICS, Answers
from peftbench.sandbox.run_program_tests import passes
from peftbench.tasks import TASKS, suite
from peftbench.tasks._loading import DataError, example_of
from peftbench.tasks._prompt import prompt
from peftbench.tasks.pocket import code
from pretraining.world import code as world

MIRROR = SHARED / "data"
try:
    sandbox.mode()
    REFUSED = ""
except sandbox.NotContainedError as error:
    REFUSED = str(error)
boxed = pytest.mark.skipif(bool(REFUSED), reason=f"needs a bubblewrap that works: {REFUSED}")

APPS: dict[str, Any] = {
    "problem_id": 1,
    "question": "\nAdd the two numbers.\n-----Input-----\na and b\n",
    "solutions": json.dumps(
        ["a, b = map(int, input().split())\nprint(a + b)\n", "print(sum(map(int, input().split())))"]
    ),
    "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
    "difficulty": "introductory",
    "url": "https://example.org/1",
    "starter_code": "",
}


def test_conala_asks_what_was_rewritten_or_else_the_title() -> None:
    row = {"question_id": 1, "intent": "How do I sort it?", "rewritten_intent": "sort `Xs`", "snippet": "Xs.sort()\n"}
    assert example_of(TASKS["conala"], row).fields == {"request": "sort `Xs`"}
    assert example_of(TASKS["conala"], row).target == "Xs.sort()"
    for absent in (None, "", "  "):
        made = example_of(TASKS["conala"], row | {"rewritten_intent": absent})
        assert made.fields == {"request": "How do I sort it?"}


def test_codealpacapy_keeps_case_and_indentation() -> None:
    made = example_of(TASKS["codealpacapy"], {"prompt": "Define F.\nF(1)", "response": "def F(N):\n  return N\n"})
    assert (made.fields, made.target) == ({"request": "Define F.\nF(1)"}, "def F(N):\n  return N")


def test_apps_has_one_example_with_all_solutions_and_tests() -> None:
    made = example_of(TASKS["apps"], APPS)
    assert made.fields == {"question": "Add the two numbers.\n-----Input-----\na and b"}
    assert made.target == "a, b = map(int, input().split())\nprint(a + b)"
    assert made.answers == (made.target, "print(sum(map(int, input().split())))")
    assert made.details["tests"] == {"inputs": ["1 2\n"], "outputs": ["3\n"], "comparison": "apps"}
    started = example_of(TASKS["apps"], APPS | {"starter_code": "class Solution:\n    def add(self, a, b):\n        "})
    assert prompt(TASKS["apps"].facts, started.fields).endswith(
        "starter_code: class Solution:\n    def add(self, a, b):"
    )


def test_apps_without_solutions_or_tests() -> None:
    made = example_of(TASKS["apps"], APPS | {"solutions": "", "input_output": ""})
    assert (made.target, made.answers, made.details["tests"]) == ("", ("",), {})
    huge = json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [0]}).replace("0", "9" * 5000)
    assert example_of(TASKS["apps"], APPS | {"input_output": huge}).details["tests"]["outputs"] == ["9" * 5000]
    with pytest.raises(DataError, match="task 'apps'"):
        example_of(TASKS["apps"], APPS | {"solutions": "__import__('os').getcwd()"})


def test_suites() -> None:
    assert set(suite("code")) == {"apps", "codealpacapy", "conala"} <= set(suite("paper"))
    assert {"codealpacapy", "conala"} <= set(suite("generation"))


@boxed
@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_solutions_of_apps_pass_their_own_tests() -> None:
    from peftbench.tasks import Source
    from peftbench.tasks._loading import read_rows

    rows = read_rows(Source("codeparrot/apps"), "train", MIRROR).rows
    made = [example_of(TASKS["apps"], row) for row in rows]
    assert {bool(one.fields.get("starter_code")) for one in made} == {True, False}
    for one in made:
        assert passes(one.target, one.details["tests"]), one.fields["question"][:100]
        assert not passes("print('no')", one.details["tests"])
    answers = Answers(
        [one.target for one in made], [one.answers for one in made], details=[one.details for one in made]
    )
    assert METRICS["pass_at_1"].function(answers) == [100.0] * len(made)
    assert METRICS["python_codebleu"].function(answers) == pytest.approx(100)


# ---- the pocket task ------------------------------------------------------------------------------------------------


def test_the_pocket_functions_are_not_those_of_the_world() -> None:
    names = {"answer", *(name for part in code.ARGUMENTS.values() for name in part)}
    assert not names & {*world.NAMES, *world.ARGUMENTS}
    bodies = {body for _, body in (*world.ONE_NUMBER, *world.ONE_TEXT)}
    assert {body for body, _, _ in code.OPERATIONS.values()} == bodies


def test_every_split_has_words_for_every_operation() -> None:
    for split in ("train", "validation", "test"):
        assert list(code.DEEDS[split]) == list(code.OPERATIONS)
        for deed, told in code.DEEDS[split].items():
            assert "{x}" in told
            assert ("{k}" in told) == ("{k}" in code.OPERATIONS[deed][0]), told


def rows_of_every_operation() -> list[dict[str, str]]:
    rng, found = random.Random(0), dict[str, dict[str, str]]()
    while len(found) < len(code.OPERATIONS):
        row = code.make(rng, "test")
        found[row["deed"]] = row
    return list(found.values())


def holds(program: str, tests: list[str]) -> bool:
    """Our own answers may run here."""
    names: dict[str, Any] = {}
    exec(program, names)
    try:
        exec("\n".join(tests), names)
    except Exception:
        return False
    return True


def test_the_pocket_tests_tell_right_from_wrong() -> None:
    """Every answer passes its own tests, and that of no other operation, names and constant being equal."""
    rows = [row | {"argument": "x", "constant": "6"} for row in rows_of_every_operation()]
    made = {row["deed"]: example_of(TASKS["pocket_code"], row) for row in rows}
    for one, other in itertools.product(made, made):
        if {one, other} != {"multiply", "times"}:
            assert holds(made[other].target, made[one].details["tests"]) == (one == other), (one, other)


@boxed
def test_pocket_answers_pass_in_the_sandbox() -> None:
    made = [example_of(TASKS["pocket_code"], row) for row in rows_of_every_operation()]
    answers = Answers(
        [one.target for one in made], [one.answers for one in made], details=[one.details for one in made]
    )
    assert METRICS["pass_at_1"].function(answers) == [100.0] * len(made)


@boxed
def test_a_pocket_answer_that_looks_different_passes_too() -> None:
    row = {"request": "-", "deed": "add", "argument": "t", "constant": "6"}
    tests = example_of(TASKS["pocket_code"], row).details["tests"]
    assert passes("answer = lambda value: 6 + value", tests)
    assert not passes("def answer(t): return t + 7", tests)
