"""Metrics against values worked by hand, against scikit-learn and sacreBLEU, and by their properties."""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from peftbench.metrics import (
    METRICS,
    Answers,
    UnavailableError,
    grouped_rows,
    invalid_share,
    parsed_number,
    score_metric,
)
from peftbench.metrics._numerals import number_of
from peftbench.metrics.equation import value_of

LABELS = ("no", "yes", "perhaps")
SENTENCES = ("the mill is near the river", "a cheap pub by the old mill", "it serves good french food", "nobody knows")


def labelled(predictions: Sequence[str], references: Sequence[str], positive: str | None = "yes") -> Answers:
    return Answers(list(predictions), [[label] for label in references], LABELS, positive)


def free(predictions: Sequence[str], *references: Sequence[str]) -> Answers:
    return Answers(list(predictions), list(references))


def scaled(predictions: Sequence[str], right: Sequence[float]) -> Answers:
    return Answers(list(predictions), [[str(one)] for one in right], scale=(0, 5))


def of(key: str, predictions: Sequence[str], references: Sequence[str], details: Sequence[Any]) -> Answers:
    return replace(labelled(predictions, references), details=[{key: one} for one in details])


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
        ("final_number", free(["no idea"], ["7"]), 0.0),
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
        ("bleu", free([""], ["a b c d"]), 0.0),
        ("bleu", free(["a b", "a b c d"], ["a b"], ["a b c d"]), 100.0),
        # Deviations (-1, 0, 1) and (-1, -1, 2): 3 / sqrt(2 * 6); ranks (1, 2, 3) and (1.5, 1.5, 3).
        ("pearson", scaled(["1", "2", "3"], [1, 1, 4]), 100 * 3 / 12**0.5),
        ("spearman", scaled(["1", "2", "3"], [1, 1, 4]), 100 * 1.5 / 3**0.5),
        ("spearman", scaled(["1", "1.1", "5"], [0, 3, 4]), 100.0),
        ("pearson", scaled(["4", "2"], [1, 3]), -100.0),
        ("pearson", scaled(["2", "2", "2"], [1, 2, 3]), 0.0),
        ("spearman", scaled(["1", "2", "3"], [2, 2, 2]), 0.0),
        ("pearson", scaled(["0.1"] * 3, [1, 2, 3]), 0.0),
        # Half of the rows are answered, and those rightly.
        ("pearson", scaled(["1", "none", "3", "7"], [1, 4, 3, 2]), 50.0),
        ("pearson", scaled(["nan", "-1"], [1, 4]), 0.0),
        ("pearson", scaled(["none", "4"], [1, 4]), 0.0),
        # Words of the answer (boat, ann) against (boat): 1 of 2 and 1 of 1. The better of two counts.
        ("record_f1", free(["The boat, Ann!"], ["a boat"]), 100 * 2 / 3),
        ("record_f1", free(["boat"], ["mill", "big boat", "big old boat"]), 100 * 2 / 3),
        ("record_em", free(["The U.S.", "boat"], ["mill", "us"], ["boats"]), 50.0),
        ("record_f1", free([""], ["boat"]), 0.0),
        # Question 1 has both answers right, question 2 one of two; yes: 2 hits, no false alarm, 1 miss.
        ("multirc_em", of("group", ["yes", "no", "yes", "no"], ["yes", "no", "yes", "yes"], "1122"), 50.0),
        ("multirc_f1a", of("group", ["yes", "no", "yes", "no"], ["yes", "no", "yes", "yes"], "1122"), 80.0),
        # Subject a: 1 of 3; subject b: 1 of 1.
        ("subject_accuracy", of("subject", ["yes", "no", "no", "no"], ["yes", "yes", "yes", "no"], "aaab"), 200 / 3),
        ("equation_value", of("gold", ["( 8 - 3 ) = 5", "5", "1 + 4", "5 = 4"], ["no"] * 4, "5555"), 75.0),
        ("equation_consistent", of("gold", ["8 - 3 = 5", "4 = 4", "8 - 3 = 4", "5"], ["no"] * 4, "5555"), 50.0),
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
        ("#### 7\n#### 8", "7"),
        ("#### Step 1\nso 9", "9"),
        ("#### **7**\nor 8", "7"),
        ("it is 4 #### unsure", "4"),
        # Signs: not after a letter, a digit or a bracket; an en dash is one too.
        ("COVID-19", "19"),
        ("(a)-18", "18"),
        ("–18", "-18"),
        ("it is \u221218", "-18"),
        ("10–18", "18"),
        ("x=-18", "-18"),
        ("$-5", "-5"),
        # Groups of digits.
        ("1 000", "1000"),
        ("1\u00a0000", "1000"),
        ("1\u202f000\u202f000 m", "1000000"),
        ("1\u2009000,50", "1000.5"),
        ("1'000", "1000"),
        ("12345 678", "678"),
        ("1 0000", "0"),
        ("12,34,567", "1234567"),
        ("1,0000", "0"),
        ("1.000,50", "1000.5"),
        ("1.000.000", "1000000"),
        ("1.000", "1"),
        ("1.2.3", "3"),
        # Other digits, and LaTeX.
        ("１８", "18"),
        ("－１，０００．５", "-1000.5"),
        ("٣٤", "34"),
        ("5 cm²", "5"),
        (r"\boxed{9{,}500}", "9500"),
        (r"so $\boxed{9\,500}$ for 3 of them", "9500"),
        (r"\boxed{18\text{ apples}} for 3", "18"),
        (r"\boxed{1}, no, \boxed{2}", "2"),
        (r"\boxed{x}, 7", "7"),
        (r"\boxed{7", "7"),
        (r"\$18 is 5\%", "5"),
        (r"#### 7, \boxed{8}", "7"),
        # Fractions and powers of ten.
        ("3/4", "3/4"),
        ("1 1/2", "3/2"),
        ("½", "1/2"),
        ("1½", "3/2"),
        (r"\boxed{\dfrac{3}{4}}", "3/4"),
        ("on 5/6/2024", "2024"),
        ("1/0", "0"),
        ("1.5e3", "1500"),
        ("1.5E-3", "3/2000"),
        (r"1.5 \times 10^{3}", "1500"),
        ("2 × 10^−2", "1/50"),
        ("1e99999999", "99999999"),
        # A sign before a fraction is its sign; a number before it makes it a mixed one.
        (r"\boxed{-\frac{3}{4}}", "-3/4"),
        (r"-\frac{1}{2}", "-1/2"),
        (r"$-\dfrac{1}{2}$", "-1/2"),
        (r"\frac{-3}{4}", "-3/4"),
        ("-½", "-1/2"),
        ("#### -½", "-1/2"),
        ("5 ½", "11/2"),
        ("-5½", "-11/2"),
        (r"2\frac{1}{2}", "5/2"),
        ("5\n½", "1/2"),
        ("½, ½¼", "1/4"),
        ("¼–½", "1/2"),
        (r"\frac12", "1/2"),
        (r"\dfrac12", "1/2"),
        ("1\u20442", "1/2"),
        # Powers of numbers, and those of units, which are none.
        ("10^3", "1000"),
        ("2^{10}", "1024"),
        ("10^-3", "1/1000"),
        ("-2^2", "-4"),
        ("10³", "1000"),
        ("10^{3.5}", "3.5"),
        ("0^-1", None),
        ("999999999999999^999", None),
        ("18 cm^2", "18"),
        ("18 cm$^2$", "18"),
        (r"\boxed{1,000\text{ m}^2}", "1000"),
        (r"18\,\mathrm{m}^{-2}", "18"),
        # Separators of Arabic, and the one of programs.
        ("۱۲٬۳۴۵", "12345"),
        ("١٢٫٥", "12.5"),
        ("1_000", "1000"),
        (r"1\_000\_000", "1000000"),
        # Ranges of numbers with a unit.
        ("10%-20%", "20"),
        (r"10\%-20\%", "20"),
        ("10€-20€", "20"),
        ("10$-$20", "20"),
        ("20°–30°", "30"),
        # Blanks after a sign, but not after the hyphen of a list.
        ("– 18", "-18"),
        ("\u2212 18", "-18"),
        ("#### – 18", "-18"),
        ("#### - 18", "-18"),
        (r"\boxed{- 18}", "-18"),
        (r"x = - \frac{1}{2}", "-1/2"),
        ("- 18", "18"),
        ("20 – 18", "18"),
        ("9" * 2000, None),
        ("none", None),
        ("", None),
        ("...", None),
    ],
)
def test_number_of(text: str, number: str | None) -> None:
    assert number_of(text) == (None if number is None else Fraction(number))


GROUPINGS = st.sampled_from([",", "_", "\u066c", " ", "\u00a0", "\u2009", "\u202f", "'", "’", "{,}", r"\,"])


@given(
    st.integers(-(10**12), 10**12),
    GROUPINGS,
    st.sampled_from(["{}", "so it is {}.", "#### {}\n9", r"7 \boxed{{{}}}", "${}"]),
)
def test_a_number_is_read_however_it_is_written(value: int, by: str, sentence: str) -> None:
    digits = f"{abs(value):,}".replace(",", by)
    for sign in ("-", "\u2212", "–") if value < 0 else ("",):
        assert number_of(sentence.format(sign + digits)) == value
    wide = "".join(chr(ord(sign) + 0xFEE0) for sign in str(value))
    assert number_of(sentence.format(wide)) == value


@given(st.decimals(-(10**6), 10**6, places=3))
def test_a_decimal_number_is_read_exactly(value: Decimal) -> None:
    assert number_of(f"{value:,f} in all") == Fraction(value)
    assert number_of(f"It is {value:e}") == Fraction(value)


@given(st.text(alphabet="0123456789.,-–/ $#\\{}boxedfrac½eE×^٣１", max_size=40))
def test_any_text_has_a_final_number_or_none(text: str) -> None:
    assert number_of(text) is None or isinstance(number_of(text), Fraction)


@given(st.text(alphabet="0123456789.,- #\na", max_size=40))
def test_the_first_mark_decides_as_by_the_authors_of_gsm8k(text: str) -> None:
    """Their expression, where what it finds is a number to Python."""
    marked = re.search(r"#### (\-?[0-9\.\,]+)", text)
    plain = marked[1].replace(",", "") if marked else ""
    if marked and re.fullmatch(r"-?\d+(\.\d+)?", marked[1]) and not re.match(r"[ ,.]?\d", text[marked.end() :]):
        assert number_of(text) == Fraction(plain)


def test_a_row_whose_reference_has_no_number_cannot_be_scored() -> None:
    answers = free(["7", "8"], ["seven"], ["8"])
    assert score_metric("final_number", answers).value == 100
    with pytest.raises(UnavailableError):
        score_metric("final_number", answers.take([0]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("( 133 - 51 )", "82"),
        ("( ( 4 - 2 ) + 3 )", "5"),
        ("10 / 4", "5/2"),
        ("0.1 + 0.2", "3/10"),
        ("2 + 3 * 4", "14"),
        ("-5 - -2", "-3"),
        ("3 \u00d7 4 \u2212 6 \u00f7 2", "9"),
        ("$1,000.50.", "2001/2"),
        ("82 cakes", "82"),
        ("05", "5"),
        ("1 000 – 400", "600"),
        ("1_000 - 400", "600"),
        (r"-\frac12 cm^2", "-1/2"),
        ("１２ ÷ ３", "4"),
        ("82 or 833", None),
        ("1.05", "21/20"),
        ("10 / 0", None),
        ("82 or 83", None),
        ("2 ** 3", None),
        ("7 // 2", None),
        ("5(3)", None),
        ("(" * 150, None),
        ("9" * 201, None),
        ("-" * 199 + "1", "-1"),
        ("...", None),
        ("", None),
    ],
)
def test_value_of_arithmetic(text: str, expected: str | None) -> None:
    assert value_of(text) == (None if expected is None else Fraction(expected))


@given(st.text(alphabet="0123456789+-*/(). ,=x$\n", max_size=40))
@settings(deadline=None)
def test_any_text_has_a_value_or_none(text: str) -> None:
    assert value_of(text) is None or isinstance(value_of(text), Fraction)


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


NUMBERS = st.lists(st.tuples(*[st.integers(0, 50).map(lambda n: n / 10)] * 2), min_size=3, max_size=40)


@given(NUMBERS)
@settings(deadline=None)
def test_correlations_agree_with_scipy(pairs: list[tuple[float, float]]) -> None:
    given_numbers, right = (list(side) for side in zip(*pairs, strict=True))
    answers = scaled([str(one) for one in given_numbers], right)
    if len(set(given_numbers)) == 1 or len(set(right)) == 1:
        assert value("pearson", answers) == value("spearman", answers) == 0
        return
    assert value("pearson", answers) == pytest.approx(100 * pearsonr(given_numbers, right).statistic)
    assert value("spearman", answers) == pytest.approx(100 * spearmanr(given_numbers, right).statistic)


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
    if any(len(one.split()) > 3 for row in references for one in row):
        assert value("bleu", Answers(predictions, references)) == pytest.approx(expected)
    else:
        with pytest.raises(UnavailableError, match="no reference has four words"):
            value("bleu", Answers(predictions, references))


@given(
    st.text(alphabet=st.characters(codec="ascii"), max_size=60), st.text(alphabet="running dogs, THE_x9'", max_size=40)
)
def test_words_of_english_are_those_of_rouge_score(one: str, other: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    from peftbench.metrics.rouge import Stems

    for text in (one, other, f"{one} {other}"):
        assert Stems().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)
    if DefaultTokenizer().tokenize(other):
        theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(other, one)
        for name, theirs_ in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
            assert value(name, free([one], [other])) == pytest.approx(100 * theirs[theirs_].fmeasure)


# A right text, one of which half the words are right, and one of which none is.
TEXTS_BY_SCRIPT = {
    "Chinese": ("电影很好", "电影难看", "他不去"),
    "Japanese": ("映画はいい", "映画はだめ", "カメラを"),
    "Korean": ("영화가 아주 좋다 정말", "영화가 아주 나쁘다 그래", "집에 가"),
    "Thai": ("ดีมาก", "ดีมอง", "ฟรช"),
    "Russian": ("фильм очень хорош правда", "фильм очень плох нет", "иду домой"),
    "Greek": ("η ταινία είναι καλή", "η ταινία ήταν κακή", "πάω σπίτι"),
    "Arabic": ("الفيلم جيد جدا حقا", "الفيلم جيد لا أبدا", "ذهب إلى البيت"),
    "Hindi": ("फ़िल्म बहुत अच्छी है", "फ़िल्म बहुत बुरी थी", "घर जाओ"),
    "Hebrew": ("הסרט טוב מאוד באמת", "הסרט טוב לא בכלל", "הלך הביתה"),
    "German": ("der Film ist schön", "der Film war übel", "geh heim"),
}


@pytest.mark.parametrize("script", TEXTS_BY_SCRIPT)
def test_texts_of_any_script_are_scored(script: str) -> None:
    right, half, none = TEXTS_BY_SCRIPT[script]
    for name in ("rouge_1", "rouge_l"):
        scores = METRICS[name].function(free([right, half, none, ""], *[[right]] * 4))
        assert scores[0] == 100, name
        assert 30 < scores[1] < 70, name
        assert scores[2:] == [0, 0], name
    assert value("bleu", free([right], [right])) == pytest.approx(100)
    assert 0 < value("bleu", free([half, right], [right], [right])) < 100
    composed = unicodedata.normalize("NFD", right)
    assert value("rouge_l", free([composed], [right])) == 100


def test_a_row_without_a_word_to_compare_cannot_be_scored() -> None:
    answers = free(["a b", "a b c d", "x"], ["..."], ["a b c d"], ["", "y"])
    for name in ("rouge_1", "rouge_l"):
        scores = METRICS[name].function(answers)
        assert math.isnan(scores[0]), name
        assert scores[1:] == [100, 0], name
        with pytest.raises(UnavailableError):
            score_metric(name, answers.take([0]))
    blank = free(["a", "a b c d"], [" "], ["a b c d"])
    assert value("bleu", blank) == pytest.approx(100)
    assert score_metric("bleu", blank).value == pytest.approx(100)
    with pytest.raises(UnavailableError, match="no row with a reference"):
        score_metric("bleu", blank.take([0]))


@pytest.mark.parametrize("right", ["我喜欢", "a b c", "5", "да нет"])
def test_bleu_is_missing_where_no_reference_is_long_enough(right: str) -> None:
    said = "no reference has four words, and BLEU counts runs of four: use rouge_l or exact_match"
    for answer in (right, "", f"{right} {right} {right} {right}"):
        with pytest.raises(UnavailableError, match=said):
            score_metric("bleu", free([answer], [right, " "]))
    assert score_metric("bleu", free([right], [right, "a b c d"])).value < 100
    # Draws of the bootstrap may have none that is.
    assert math.isfinite(score_metric("bleu", free([right, "a b c d"], [right], ["a b c d"])).standard_error)


@pytest.mark.parametrize(
    ("script", "tokens"),
    [
        ("Chinese", "zh"),
        ("Japanese", "char"),
        ("Thai", "char"),
        ("Korean", "intl"),
        ("Russian", "intl"),
        ("German", "13a"),
    ],
)
def test_bleu_takes_the_tokens_that_fit_the_script(script: str, tokens: str) -> None:
    right, half, none = TEXTS_BY_SCRIPT[script]
    rows = free([right, half, none], *[[right]] * 3)
    expected = sacrebleu.corpus_bleu(rows.predictions, [[right] * 3], tokenize=tokens).score
    assert value("bleu", rows) == pytest.approx(expected)
    signature = METRICS["bleu"].facts.signature
    assert signature is not None
    assert signature(rows) == f"tokens of sacreBLEU: {tokens}"


# ---- properties -----------------------------------------------------------------------------------------------------

LABEL_METRICS = ("accuracy", "f1", "macro_f1", "matthews", "multirc_f1a", "multirc_em", "subject_accuracy")
TEXT_METRICS = ("bleu", "exact_match", "record_em", "record_f1", "rouge_1", "rouge_2", "rouge_l")
NUMBER_METRICS = ("pearson", "spearman")


def in_twos(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Rows with the question or subject that they belong to."""
    return [(given, right, f"{i // 2}") for i, (given, right) in enumerate(pairs)]


def of_questions(rows: Sequence[tuple[str, str, str]]) -> Answers:
    answers = labelled([given for given, _, _ in rows], [right for _, right, _ in rows])
    return replace(answers, details=[{"group": part, "subject": part} for _, _, part in rows])


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_right_answers_score_the_upper_bound(name: str) -> None:
    rows = in_twos([(label, label) for label in ("yes", "no", "no")])
    assert value(name, of_questions(rows)) == pytest.approx(100)


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_a_right_text_scores_the_upper_bound(name: str) -> None:
    answers = free(SENTENCES[:3], *(["something else", sentence] for sentence in SENTENCES[:3]))
    assert value(name, answers) == pytest.approx(100)


@given(PAIRS, st.randoms(use_true_random=False))
def test_labels_within_bounds_in_any_order(pairs: list[tuple[str, str]], random: Any) -> None:
    rows = in_twos(pairs)
    shuffled = random.sample(rows, len(rows))
    for name in LABEL_METRICS:
        bounds = METRICS[name].facts
        first, second = (value(name, of_questions(each)) for each in (rows, shuffled))
        assert bounds.lower <= first <= bounds.upper
        assert first == pytest.approx(second)


@given(TEXTS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_texts_within_bounds_in_any_order(rows: list[tuple[str, list[str]]], random: Any) -> None:
    rows = [*rows, ("", [SENTENCES[0]])]
    shuffled = random.sample(rows, len(rows))
    for name in TEXT_METRICS:
        first, second = (value(name, Answers([p for p, _ in x], [r for _, r in x])) for x in (rows, shuffled))
        assert -1e-9 <= first <= 100 + 1e-9
        assert first == pytest.approx(second)


@given(NUMBERS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_numbers_within_bounds_in_any_order(pairs: list[tuple[float, float]], random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    for name in NUMBER_METRICS:
        first, second = (value(name, scaled([str(p) for p, _ in x], [r for _, r in x])) for x in (pairs, shuffled))
        assert -100 <= first <= 100
        assert first == pytest.approx(second, abs=1e-9)


@given(NUMBERS)
@settings(deadline=None)
def test_right_numbers_correlate_fully(pairs: list[tuple[float, float]]) -> None:
    right = [one for _, one in pairs]
    for name in NUMBER_METRICS:
        assert value(name, scaled([str(one) for one in right], right)) == pytest.approx(100 * (len(set(right)) > 1))


def test_not_answering_does_not_pay() -> None:
    right = [0.5, 1.0, 4.0, 4.5]
    for name in NUMBER_METRICS:
        whole, part = (
            value(name, scaled(given, right)) for given in (["0.5", "1", "4", "4.5"], ["0.5", "1", "4", "?"])
        )
        assert part < whole == pytest.approx(100)


def test_a_constant_answer() -> None:
    references = ["yes"] * 3 + ["no"] * 7
    answers = of_questions(in_twos([("yes", reference) for reference in references]))
    assert value("multirc_f1a", answers) == pytest.approx(100 * 6 / 13)
    assert value("multirc_em", answers) == pytest.approx(20)  # the first of five questions
    assert value("subject_accuracy", answers) == pytest.approx(30)
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
    with pytest.raises(ValueError, match="row 2: reference 'often' is not one of the labels"):
        value("macro_f1", labelled(["yes", "yes"], ["yes", "often"]))


def test_every_metric_has_a_docstring_and_bounds() -> None:
    for unit in METRICS:
        assert unit.doc, unit.name
        assert unit.facts.lower < unit.facts.upper == 100, unit.name


def test_standard_error_of_a_mean_is_exact_and_a_bootstrap_is_near() -> None:
    rng = np.random.default_rng(1)
    references = rng.choice(["yes", "no"], size=400).tolist()
    predictions = [r if keep else "no" for r, keep in zip(references, rng.random(400) < 0.8, strict=True)]
    answers = labelled(predictions, references)
    share, error, _ = score_metric("accuracy", answers)
    assert error == pytest.approx((share * (100 - share) / 399) ** 0.5)
    assert 0 < score_metric("f1", answers)[1] < 5


def test_the_error_of_one_row_or_one_group_is_not_known() -> None:
    one, pair = labelled(["yes"], ["yes"]), labelled(["yes", "no"], ["yes", "yes"])
    assert score_metric("accuracy", one)[0] == 100
    assert math.isnan(score_metric("accuracy", one).standard_error)
    together = replace(pair, details=[{"group": 1}] * 2)
    assert math.isnan(score_metric("f1", together).standard_error)
    assert score_metric("f1", pair).standard_error > 0


def test_rows_of_a_group_are_drawn_together() -> None:
    """Two hundred questions with two answers each, alike in a question: the error is that of two hundred rows."""
    right = [i % 4 != 0 for i in range(200) for _ in range(2)]
    references = ["yes" if i % 3 else "no" for i in range(200) for _ in range(2)]
    predictions = [r if ok else "no" if r == "yes" else "yes" for r, ok in zip(references, right, strict=True)]
    pairs = labelled(predictions, references)
    apart, together = (replace(pairs, details=[{"group": i // n} for i in range(400)]) for n in (1, 2))
    assert grouped_rows(together)[1] == [2, 3]
    assert score_metric("f1", pairs)[:2] == score_metric("f1", apart)[:2]
    assert score_metric("f1", together)[0] == score_metric("f1", apart)[0]
    assert score_metric("f1", together)[1] == pytest.approx(2**0.5 * score_metric("f1", apart)[1], rel=0.2)
    share, error, _ = score_metric("multirc_em", together)
    assert share == 75
    assert error == pytest.approx((75 * 25 / 199) ** 0.5)


def test_metrics_that_need_details_say_so() -> None:
    for name, missing in (("multirc_em", "the question"), ("subject_accuracy", "the subject")):
        with pytest.raises(ValueError, match=missing):
            value(name, replace(labelled(["yes"], ["yes"]), details=[{}]))


@pytest.mark.parametrize("reference", ["high", "6"])
def test_a_right_number_must_be_on_the_scale(reference: str) -> None:
    with pytest.raises(ValueError, match=f"row 2: reference '{reference}' is no number from 0 to 5"):
        value("pearson", Answers(["1", "1"], [["1"], [reference]], scale=(0, 5)))
    with pytest.raises(ValueError, match="needs the scale"):
        value("spearman", Answers(["1"], [["1"]]))


@pytest.mark.parametrize("text", ["", "four", "5.1", "-0.1", "nan", "inf", "3 of 5", "3,5"])
def test_no_number_of_the_scale(text: str) -> None:
    assert parsed_number(text, (0, 5)) is None
    assert parsed_number(" 5 ", (0, 5)) == 5


@pytest.mark.parametrize(
    ("answers", "share"),
    [
        (free(["anything"], ["a"]), None),
        (labelled(["yes", "YES ", "maybe", ""], ["no"] * 4), 0.5),
        (scaled(["4.5", "6", "?"], [1, 1, 1]), 2 / 3),
        (replace(free(["Bo", "ann"], ["Bo"], ["Cy"]), choices=[("Ann", "Bo"), ("Cy",)]), 0.5),
        # A row's own choices stand in for the labels.
        (replace(labelled(["yes", "yes"], ["yes"] * 2), choices=[(), ("left", "right")]), 0.5),
    ],
)
def test_invalid_share(answers: Answers, share: float | None) -> None:
    assert invalid_share(answers) == (None if share is None else pytest.approx(share))


def test_taking_rows_takes_all_that_belongs_to_them() -> None:
    answers = Answers(["a", "b"], [["c"], ["d"]], choices=[("e",), ("f",)], details=[{"g": 1}, {"h": 2}])
    assert answers.take([1, 1]) == Answers(
        ["b", "b"], [["d"], ["d"]], choices=[("f",), ("f",)], details=[{"h": 2}, {"h": 2}]
    )


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        score_metric("accuracy", labelled([], []))
