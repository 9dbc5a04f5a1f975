"""CodeBLEU, syntax and pass@1: values worked by hand and from the package `codebleu`, and properties."""

import ast
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench import sandbox
from peftbench.metrics import METRICS, Answers, UnavailableError, score_metric
from peftbench.metrics.python_codebleu import (
    code_bleu_parts,
    code_tokens,
    combined,
    compare_code,
    data_flow,
    parsed,
    subtrees,
)

try:
    sandbox.mode()
    REFUSED = ""
except sandbox.NotContainedError as error:
    REFUSED = str(error)
boxed = pytest.mark.skipif(bool(REFUSED), reason=f"needs a bubblewrap that works: {REFUSED}")


def value(name: str, predictions: list[str], *references: list[str]) -> float:
    return float(np.mean(METRICS[name].function(Answers(predictions, list(references)))))


# ---- CodeBLEU -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x**=2 if a!=b else [::-1]", "x **= 2 if a != b else [ : : - 1 ]"),
        ("d['Key']//y", "d [ ' Key ' ] // y"),
        ("def f(a)->int:\n\treturn a", "def f ( a ) -> int : return a"),
        ("", ""),
    ],
)
def test_tokens(code: str, expected: str) -> None:
    assert code_tokens(code) == expected.split()


def test_subtrees_are_without_names_values_and_leaves() -> None:
    # Module, Expr and BinOp; what is below them (a name, an operator, a number) are leaves.
    one, other = (subtrees(ast.parse(code)) for code in ("a + 1", "b + 'x'"))
    assert one == other
    assert one.total() == 3
    assert subtrees(ast.parse("a - 1")) & one == Counter()
    # The call and its expression, and the whole twice over: Module, 2 Expr, 2 Call.
    assert sorted(subtrees(ast.parse("f(a)\nf(b)")).values()) == [1, 2, 2]


@pytest.mark.parametrize(
    ("code", "edges"),
    [
        ("x = 1", {}),
        ("y = x", {("1", "computedFrom", ("0",)): 1}),
        # x is used again, y is from x, y is used again.
        (
            "x = 1\ny = x + 2\nprint(y)",
            {("0", "comesFrom", ("0",)): 1, ("1", "computedFrom", ("0",)): 1, ("1", "comesFrom", ("1",)): 1},
        ),
        ("def f(a): return a", {("0", "comesFrom", ("0",)): 1}),
        ("for i in n: pass", {("1", "computedFrom", ("0",)): 1}),
        # i is from n before it is used.
        ("[i for i in n]", {("1", "computedFrom", ("0",)): 1, ("1", "comesFrom", ("1",)): 1}),
        ("a, b = c, d", {("2", "computedFrom", ("0", "1")): 1, ("3", "computedFrom", ("0", "1")): 1}),
        ("s += v", {("0", "computedFrom", ("0", "1")): 1}),
    ],
)  # fmt: skip
def test_data_flow(code: str, edges: dict[tuple[str, str, tuple[str, ...]], int]) -> None:
    assert data_flow(ast.parse(code)) == Counter(edges)


# N-gram and weighted n-gram match of the package codebleu 0.7.0 with our tokens; the other two parts worked by hand.
BY_PACKAGE = [
    ("def add(a, b):\n    return a + b", "def sum(x, y):\n    return x + y", 0.1041904465, 0.1109466047, 1.0, 1.0),
    # Both have three edges; the second use of a variable is of another one.
    ("x = 1\ny = x + 2\nprint(y)", "a = 1\nb = a + 2\nprint(a)", 0.2709198855, 0.2709198855, 1.0, 2 / 3),
]


@pytest.mark.parametrize(("given", "asked", "ngram", "weighted", "syntax", "flow"), BY_PACKAGE)
def test_parts(given: str, asked: str, ngram: float, weighted: float, syntax: float, flow: float) -> None:
    found = code_bleu_parts(compare_code(given, asked))
    assert found == pytest.approx([ngram, weighted, syntax, flow], abs=1e-9)
    assert value("python_codebleu", [given], [asked]) == pytest.approx(
        25 * (ngram + weighted + syntax + flow), abs=1e-6
    )


def test_keywords_weigh_five_times_as_much() -> None:
    # Of the words `return x`, one that weighs 1 and one that weighs 0.2; the one pair is not matched: a tenth of one.
    assert code_bleu_parts(compare_code("return y", "return x"))[1] == pytest.approx(math.sqrt(1 / 1.2 * 0.1))
    assert code_bleu_parts(compare_code("yield x", "return x"))[1] == pytest.approx(math.sqrt(0.2 / 1.2 * 0.1))


def test_case_counts() -> None:
    assert value("python_codebleu", ["Total = Sum(Items)"], ["Total = Sum(Items)"]) == pytest.approx(100)
    assert value("python_codebleu", ["total = sum(items)"], ["Total = Sum(Items)"]) < 70


def test_the_best_reference_counts() -> None:
    code = "def f(n):\n    return n % 2 == 0"
    alone = value("python_codebleu", [code], ["print('x')"])
    assert alone < 30
    assert value("python_codebleu", [code], ["print('x')", code]) == pytest.approx(100)


def test_names_change_ngrams_alone() -> None:
    given, asked = "def f(n):\n    m = n + 1\n    return m", "def g(k):\n    j = k + 1\n    return j"
    assert code_bleu_parts(compare_code(given, asked))[2:] == [1.0, 1.0]


def test_what_does_not_parse() -> None:
    # An answer that is no Python matches no syntax and no data flow; a reference that is none has nothing to match.
    assert code_bleu_parts(compare_code("x = = y", "x = y"))[2:] == [0.0, 0.0]
    assert code_bleu_parts(compare_code("print x", "print x"))[2:] == [None, None]
    assert value("python_codebleu", ["print x"], ["print x"]) == pytest.approx(100)
    assert value("python_codebleu", [""], ["x = y"]) == 0
    assert parsed("(" * 5000) is None
    assert parsed("a\0b") is None
    deep = "+".join(["a"] * 5000)
    assert 0 <= value("python_codebleu", [deep], ["a + a"]) <= 100


def test_docstrings_and_comments_are_not_syntax() -> None:
    plain, told = "def f(a):\n    return a", 'def f(a):\n    """Give a."""\n    # It.\n    return a'
    assert code_bleu_parts(compare_code(told, plain))[2:] == [1.0, 1.0]


def test_rows_are_summed_and_rows_without_a_reference_left_out() -> None:
    pairs = [("a = b", "a = b"), ("print(x)", "for x in y: print(x)"), ("", "f(x)")]
    total = np.sum([compare_code(given, asked) for given, asked in pairs], axis=0)
    predictions, references = zip(*pairs, strict=True)
    expected = combined(total)
    assert value("python_codebleu", list(predictions), *([one] for one in references)) == pytest.approx(expected)
    assert value("python_codebleu", [*predictions, "x"], *([one] for one in references), [""]) == pytest.approx(
        expected
    )
    with pytest.raises(UnavailableError, match="no row with a reference"):
        score_metric("python_codebleu", Answers(["x"], [[""]]))


CODE = st.sampled_from(
    ["a = b + 1", "def f(x): return x[0]", "print x", "for i in range(3):\n    s += i", "None", "'x'"]
)


@given(st.lists(st.tuples(CODE, st.lists(CODE, min_size=1, max_size=3)), min_size=1, max_size=6), st.randoms())
@settings(deadline=None, max_examples=60)
def test_within_bounds_in_any_order_and_right_is_100(rows: list[tuple[str, list[str]]], rng: random.Random) -> None:
    shuffled = rng.sample(rows, len(rows))
    first, second = (value("python_codebleu", [p for p, _ in x], *(r for _, r in x)) for x in (rows, shuffled))
    assert 0 <= first <= 100 + 1e-9
    assert first == pytest.approx(second)
    assert value("python_codebleu", [r[-1] for _, r in rows], *(r for _, r in rows)) == pytest.approx(100)


# ---- syntax ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "valid"),
    [
        ("x = 1", True),
        ("print('it is')", True),
        ("print 'it was'", False),
        ("", False),
        ("  \n# nothing\n", False),
        ("def f(:", False),
        ("a\0", False),
        ("(" * 5000, False),
        ("'\\d'", True),
        ("```python\nx = 1\n```", False),
    ],
)
@pytest.mark.filterwarnings("error")
def test_syntax_valid(code: str, valid: bool) -> None:
    assert METRICS["syntax_valid"].function(Answers([code], [["x"]])) == [100.0 * valid]


# ---- pass@1 ---------------------------------------------------------------------------------------------------------

TESTED = Answers(
    ["def f(a): return a + 1", "def f(a): return a", "print(int(input()) * 2)", "anything"],
    [["-"]] * 4,
    details=[
        {"tests": ["assert f(1) == 2"]},
        {"tests": ["assert f(1) == 2"]},
        {"tests": {"inputs": ["4\n"], "outputs": ["8"]}},
        {"tests": {}},
    ],
)


@boxed
def test_pass_at_1() -> None:
    assert METRICS["pass_at_1"].function(TESTED)[:3] == [100.0, 0.0, 100.0]
    # The row without tests does not count: two of three, and the error of three.
    share, error, _ = score_metric("pass_at_1", TESTED)
    assert share == pytest.approx(200 / 3)
    assert error == pytest.approx((share * (100 - share) / 2) ** 0.5)


@boxed
@pytest.mark.parametrize("details", [[], [{}], [{"tests": []}]])
def test_without_any_tests_there_is_no_score(details: list[dict[str, object]]) -> None:
    with pytest.raises(UnavailableError, match="no row"):
        score_metric("pass_at_1", Answers(["x"], [["y"]], details=details))


def test_where_nothing_can_be_contained_there_is_no_score(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.delenv(sandbox.SWITCH, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="is not installed"):
        score_metric("pass_at_1", TESTED)
