"""Faults of the original benchmark that ours does not have: one test a fault, on rows of our own."""

from typing import Any

import numpy as np
import pytest

from golden_prompts import GOLDEN
from peftbench.metrics import METRICS, Answers
from peftbench.tasks import TASKS, Example
from peftbench.tasks._loading import DataError, example_of
from peftbench.tasks._prompt import prompt


def made(task: str, **changes: Any) -> Example:
    """The golden row of a task, with other values."""
    return example_of(TASKS[task], GOLDEN[task][0] | changes)


def scored(task: str, metric: str, predictions: list[str], examples: list[Example]) -> float:
    facts = TASKS[task].facts
    assert metric in facts.metrics
    answers = Answers(
        predictions,
        [one.answers for one in examples],
        facts.labels,
        facts.positive,
        facts.scale,
        details=[one.details for one in examples],
    )
    return float(np.mean(METRICS[metric].function(answers)))


def test_mnli_says_matched_and_is_matched() -> None:
    assert TASKS["mnli"].facts.source.test == "validation_matched"


@pytest.mark.parametrize(
    ("task", "positive"),
    [("qnli", "entailment"), ("rte", "entailment"), ("mrpc", "equivalent"), ("qqp", "duplicate"), ("wic", "true")],
)
def test_f1_looks_for_the_positive_label(task: str, positive: str) -> None:
    # Of three rows with the label one is found, and nothing is taken for it: precision 1, recall 1/3.
    facts = TASKS[task].facts
    (other,) = set(facts.labels) - {positive}
    rows = [made(task, label=facts.labels.index(positive))] * 3
    assert scored(task, "f1", [positive, other, other], rows) == pytest.approx(50)
    assert facts.metrics[0] == "f1"


def test_stsb_asks_for_one_decimal() -> None:
    assert [made("stsb", label=value).target for value in (4.800000190734863, 0, 5, 3.3329999)] == [
        "4.8",
        "0.0",
        "5.0",
        "3.3",
    ]


def test_cola_is_scored_by_matthews() -> None:
    rows = [made("cola", label=value) for value in (1, 1, 1, 0)]
    always = ["acceptable"] * 4
    assert TASKS["cola"].facts.metrics == ("matthews", "f1", "accuracy")
    assert scored("cola", "matthews", always, rows) == 0
    assert scored("cola", "f1", always, rows) > 85


def test_record_has_one_row_a_query_and_all_its_answers() -> None:
    one = made("record", answers=["Arle", "Ann Bell", "Arle"])
    assert (one.target, one.answers) == ("Arle", ("Arle", "Ann Bell"))
    assert one.choices == ("Arle", "Friday", "Ann Bell")
    assert scored("record", "record_em", ["the ann bell."], [one]) == 100
    assert scored("record", "record_f1", ["Ann"], [one]) == pytest.approx(200 / 3)
    assert "@highlight" not in one.fields["passage"]


def test_multirc_is_scored_by_question() -> None:
    rows = [
        made("multirc", answer=a, label=b, question=q) for a, b, q in (("Bo", 1, "?"), ("Di", 0, "?"), ("Cy", 1, "!"))
    ]
    assert scored("multirc", "multirc_em", ["true", "true", "true"], rows) == 50
    assert scored("multirc", "multirc_f1a", ["true", "true", "true"], rows) == pytest.approx(80)


def test_wsc_names_its_marks_rightly() -> None:
    question = prompt(TASKS["wsc"].facts, made("wsc").fields)
    assert "the pronoun, which stands between # marks" in question
    assert "the noun, which stands between * marks" in question
    assert "thanked *Bo* because #she# had" in question


def test_wsc_marks_the_words_meant() -> None:
    text = 'Bo said: "Bo rows, and she knows it ." She laughed'
    spans = {"span1_text": "Bo", "span1_index": 2, "span2_text": "she", "span2_index": 5}
    assert made("wsc", text=text, **spans).fields["text"] == 'Bo said: "*Bo* rows, and #she# knows it ." She laughed'
    spans = {"span1_text": "her boat", "span1_index": 1, "span2_text": "her", "span2_index": 1}
    assert made("wsc", text="Sell her boat", **spans).fields["text"] == "Sell *#her# boat*"
    with pytest.raises(DataError, match="'it' is not in the text"):
        made("wsc", span2_text="it")


def test_copa_asks_its_question() -> None:
    questions = {prompt(TASKS["copa"].facts, made("copa", question=asked).fields) for asked in ("cause", "effect")}
    assert len(questions) == 2


def test_hellaswag_keeps_the_context_as_written() -> None:
    context = "Ann and NASA row. then Ann of NASA"
    assert made("hellaswag", ctx=context, ctx_b="then Ann of NASA").fields["context"] == context


def test_winogrande_names_both_options() -> None:
    question = prompt(TASKS["winogrande"].facts, made("winogrande").fields)
    assert "option1: Ann\noption2: Bo" in question
    assert question.startswith("Which option")


def test_winogrande_refuses_hidden_answers() -> None:
    with pytest.raises(DataError, match=r"task 'winogrande', .* label '' has no name .* hidden"):
        made("winogrande", answer="")


def test_gsm8k_reads_numbers_as_people_write_them() -> None:
    rows = [made("gsm8k", answer=f"So.\n#### {answer}") for answer in ("18", "1,000", "2.50", "1000")]
    assert scored("gsm8k", "final_number", ["It is $18.", "#### $1,000", "2.5", "1,000.00"], rows) == 100


def test_svamp_looks_at_the_gold_answer() -> None:
    rows = [made("svamp")] * 4
    answers = ["( 8 - 2 ) = 6", "( 9 - 3 ) = 5", "( 8 - 3 )", "5 oars"]
    assert scored("svamp", "equation_value", answers[:1], rows[:1]) == 0
    assert scored("svamp", "equation_consistent", answers[:1], rows[:1]) == 100
    assert scored("svamp", "equation_value", answers, rows) == 75
    assert scored("svamp", "equation_consistent", answers, rows) == 25


def test_svamp_right_where_its_equation_is_wrong() -> None:
    # The source has such rows: the answer counts, not what the equation comes to.
    one = made("svamp", Equation="( ( 4.0 - 2.0 ) + 3.0 )", Answer="1")
    assert one.target == "( ( 4 - 2 ) + 3 ) = 1"
    assert scored("svamp", "equation_value", [one.target, "5"], [one, one]) == 50


def test_no_data_is_executed() -> None:
    row = made("svamp", Answer="5")
    for text in ("__import__('os').getcwd()", "2**9**9", "(lambda: 5)()", "[5][0]", "9" * 10_000):
        assert scored("svamp", "equation_consistent", [f"{text} = {text}"], [row]) == 0


def test_a_wrong_label_is_a_clear_error_and_never_another_label() -> None:
    hidden = {"siqa": "", "hellaswag": "", "winogrande": "", "openbookqa": "", "math_qa": "", "stsb": -1.0, "mmlu": -1}
    column = {"winogrande": "answer", "openbookqa": "answerKey", "math_qa": "correct", "mmlu": "answer"}
    for task, value in hidden.items():
        with pytest.raises(DataError, match=f"task '{task}', data set "):
            made(task, **{column.get(task, "label"): value})
    with pytest.raises(DataError, match="a query without answers"):
        made("record", answers=[])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 5", "1 2 3 4 5"),
        ("['a ) 1', 'b ) 2', 'c ) 3', 'd ) 4', 'e ) 5']", "1 2 3 4 5"),
        ("a ) a ) 1 , b ) b ) 2 , c ) c ) 3 , d ) d ) 4 , e ) 5", "1 2 3 4 5"),
        ("a ) ( 0 , 5 ) , b ) 1,000 , c ) c + 1 , d ) - 4 , e ) [ 5 ]", "( 0 , 5 )|1,000|c + 1|- 4|[ 5 ]"),
        ("a ) 1 , b ) 2", "1 2"),
    ],
)
def test_options_of_math_qa(options: str, expected: str) -> None:
    fields = dict(made("math_qa", options=options).fields)
    del fields["problem"]
    values = expected.split("|" if "|" in expected else None)
    assert fields == dict(zip("abcde", values, strict=False))


def test_options_of_math_qa_without_letters() -> None:
    with pytest.raises(DataError, match="no options in '1, 2, 3'"):
        made("math_qa", options="1, 2, 3")
