"""Metrics against values worked by hand, against scikit-learn and sacreBLEU, and by their properties."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from peftbench.metrics import METRICS, Answers, score
from peftbench.metrics.final_number import number_of

LABELS = ("no", "yes", "perhaps")
SENTENCES = ("the mill is near the river", "a cheap pub by the old mill", "it serves good french food", "nobody knows")


def labelled(predictions: Sequence[str], references: Sequence[str], positive: str | None = "yes") -> Answers:
    return Answers(list(predictions), [[label] for label in references], LABELS, positive)


def free(predictions: Sequence[str], *references: Sequence[str]) -> Answers:
    return Answers(list(predictions), list(references))


def value(name: str, answers: Answers) -> float:
    return float(np.mean(METRICS[name].function(answers)))


# ---- worked by hand -------------------------------------------------------------------------------------------------

# yes: 1 hit, 1 false alarm, 2 misses, so F1 = 2/5; no: 2 hits, 1 false alarm, 1 miss, so F1 = 4/6.
TRUE = ("yes", "yes", "yes", "no", "no", "no")
GIVEN = ("yes", "no", "maybe", "no", "no", "yes")


@pytest.mark.parametrize(
    ("name", "answers", "expected"),
    [
        ("accuracy", labelled(GIVEN, TRUE), 50.0),
        ("f1", labelled(GIVEN, TRUE), 40.0),
        ("f1", labelled(GIVEN, TRUE, positive="no"), 200 / 3),
        ("f1", labelled(["no", "no"], ["no", "no"]), 0.0),
        ("macro_f1", labelled(GIVEN, TRUE), (40 + 200 / 3) / 2),
        # 6 rows, 3 right, given (3 no, 2 yes, 1 outside), asked (3, 3, 0): (18 - 15) / sqrt((36 - 14) (36 - 18)).
        ("matthews", labelled(GIVEN, TRUE), 100 * 3 / 396**0.5),
        ("matthews", labelled(["no", "yes"], ["yes", "no"]), -100.0),
        ("exact_match", free([" x = 1\n", "X = 2"], ["y", "x = 1"], ["x = 2"]), 50.0),
        ("final_number", free(["so 3 + 4 is 7.", "#### 18"], ["#### 7"], ["#### 19"]), 50.0),
        ("final_number", free(["no idea"], ["no number either"]), 0.0),
        # Words a b c d against a c e: 2 of 4 given and 2 of 3 asked for; no pair in common.
        ("rouge_1", free(["a b c d"], ["a c e"]), 100 * 4 / 7),
        ("rouge_l", free(["a b c d"], ["a c e"]), 100 * 4 / 7),
        ("rouge_l", free(["c a"], ["a c e"]), 40.0),
        ("rouge_2", free(["a b c d"], ["a c e"]), 0.0),
        ("rouge_2", free(["a b c"], ["x y", "a b d e"]), 100 * 2 / 5),
        ("rouge_1", free(["running dogs"], ["run dog"]), 100.0),
        # Precisions 4/5, 3/4, 2/3, 1/2, whose product is 1/5; equal lengths.
        ("bleu", free(["a b c d x"], ["a b c d e"]), 100 * 0.2**0.25),
        # All n-grams are right, but 4 words stand for 5.
        ("bleu", free(["a b c d"], ["a b c d e"]), 100 * np.exp(1 - 5 / 4)),
        ("bleu", free([""], ["a b"]), 0.0),
    ],
)
def test_golden(name: str, answers: Answers, expected: float) -> None:
    assert value(name, answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("$18", "18"),
        ("1,000", "1000"),
        ("18.00", "18"),
        ("#### 18", "18"),
        ("It costs $1,234.50.", "1234.5"),
        ("She has 18.", "18"),
        ("10-3", "3"),
        ("it fell to -5", "-5"),
        ("it fell to \u22125", "-5"),
        ("-$5", "-5"),
        ("1, 2,3", "3"),
        ("1,2,3", "3"),
        (".5 of it", "0.5"),
        ("5%", "5"),
        ("first 12 #### 7 apples for 3 children", "7"),
        ("#### 7\n#### 8", "8"),
        ("#### Step 1\nso 9", "9"),
        ("#### **7**\nor 8", "7"),
        ("it is 4 #### unsure", "4"),
        ("none", None),
        ("", None),
        ("...", None),
    ],
)
def test_number_of(text: str, number: str | None) -> None:
    assert number_of(text) == (None if number is None else Decimal(number))


# ---- against other implementations ----------------------------------------------------------------------------------

PAIRS = st.lists(st.tuples(st.sampled_from([*LABELS, "outside"]), st.sampled_from(LABELS)), min_size=1, max_size=60)


@pytest.mark.filterwarnings("ignore:A single label")
@given(PAIRS)
def test_agrees_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predictions, references = (list(side) for side in zip(*pairs, strict=True))
    answers = labelled(predictions, references)
    occurring: Any = [label for label in LABELS if label in predictions or label in references]
    expected = {
        "accuracy": accuracy_score(references, predictions),
        "f1": f1_score(references, predictions, labels=["yes"], average="macro", zero_division=0),
        "macro_f1": f1_score(references, predictions, labels=occurring, average="macro", zero_division=0),
        "matthews": matthews_corrcoef(references, predictions),
    }
    for name, reference in expected.items():
        assert value(name, answers) == pytest.approx(100 * reference), name


TEXTS = st.lists(
    st.tuples(st.sampled_from(SENTENCES), st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=3)),
    min_size=1,
    max_size=8,
)


@given(TEXTS)
@settings(deadline=None)
def test_bleu_agrees_with_sacrebleu(rows: list[tuple[str, list[str]]]) -> None:
    predictions, references = (list(side) for side in zip(*rows, strict=True))
    streams: Any = list(zip_longest(*references))
    expected = sacrebleu.corpus_bleu(predictions, streams).score
    assert value("bleu", Answers(predictions, references)) == pytest.approx(expected)


# ---- properties -----------------------------------------------------------------------------------------------------

LABEL_METRICS = ("accuracy", "f1", "macro_f1", "matthews")
TEXT_METRICS = ("bleu", "exact_match", "rouge_1", "rouge_2", "rouge_l")


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_right_answers_score_the_upper_bound(name: str) -> None:
    assert value(name, labelled(("yes", "no", "no"), ("yes", "no", "no"))) == pytest.approx(100)


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_a_right_text_scores_the_upper_bound(name: str) -> None:
    answers = free(SENTENCES[:3], *(["something else", sentence] for sentence in SENTENCES[:3]))
    assert value(name, answers) == pytest.approx(100)


@given(PAIRS, st.randoms(use_true_random=False))
def test_labels_within_bounds_in_any_order(pairs: list[tuple[str, str]], random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    for name in LABEL_METRICS:
        bounds = METRICS[name].facts
        first, second = (
            value(name, labelled([p for p, _ in rows], [r for _, r in rows])) for rows in (pairs, shuffled)
        )
        assert bounds.lower <= first <= bounds.upper
        assert first == pytest.approx(second)


@given(TEXTS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_texts_within_bounds_in_any_order(rows: list[tuple[str, list[str]]], random: Any) -> None:
    shuffled = random.sample(rows, len(rows))
    for name in TEXT_METRICS:
        first, second = (value(name, Answers([p for p, _ in x], [r for _, r in x])) for x in (rows, shuffled))
        assert -1e-9 <= first <= 100 + 1e-9
        assert first == pytest.approx(second)


def test_a_constant_answer() -> None:
    references = ["yes"] * 3 + ["no"] * 7
    answers = labelled(["yes"] * 10, references)
    assert value("accuracy", answers) == pytest.approx(30)
    assert value("f1", answers) == pytest.approx(100 * 6 / 13)
    assert value("macro_f1", answers) == pytest.approx(100 * 3 / 13)
    assert value("matthews", answers) == 0


def test_an_answer_outside_the_label_set_is_a_miss_of_the_true_label() -> None:
    wrong, outside = (labelled(["yes", "no", last], ["yes", "no", "no"]) for last in ("yes", "none of these"))
    assert value("accuracy", wrong) == value("accuracy", outside)
    assert value("f1", outside) == 100  # no false alarm for yes
    assert value("macro_f1", outside) == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_labels_are_compared_folded() -> None:
    answers = Answers(["sci/tech"], [["sci/tech"]], ("World", "Sci/Tech"), "Sci/Tech")
    assert value("f1", answers) == value("macro_f1", answers) == 100


@pytest.mark.parametrize("positive", [None, "often"])
def test_f1_needs_a_positive_label(positive: str | None) -> None:
    with pytest.raises(ValueError, match="positive label"):
        value("f1", labelled(["yes"], ["yes"], positive))


def test_a_reference_outside_the_label_set_is_refused() -> None:
    with pytest.raises(ValueError, match="'often' is not one of the labels"):
        value("macro_f1", labelled(["yes"], ["often"]))


def test_every_metric_has_a_docstring_and_bounds() -> None:
    for unit in METRICS:
        assert unit.doc, unit.name
        assert unit.facts.lower < unit.facts.upper == 100, unit.name


def test_standard_error_of_a_mean_is_exact_and_a_bootstrap_is_near() -> None:
    rng = np.random.default_rng(1)
    references = rng.choice(["yes", "no"], size=400).tolist()
    predictions = [r if keep else "no" for r, keep in zip(references, rng.random(400) < 0.8, strict=True)]
    answers = labelled(predictions, references)
    share, error = score("accuracy", answers)
    assert error == pytest.approx((share * (100 - share) / 399) ** 0.5)
    assert 0 < score("f1", answers)[1] < 5


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        score("accuracy", labelled([], []))
