"""Chance: what the best constant answer scores, and the runs that are not shown to be better."""

import io
from dataclasses import replace
from itertools import product

import pandas as pd
import pytest
from rich.console import Console

from peftbench.report.latex import latex
from peftbench.report.tables import leaderboards_csv, leaderboards_markdown
from peftbench.report.terminal import View
from peftbench.studies._chance_level import at_chance
from peftbench.studies.leaderboard import leaderboards
from peftbench.tasks import TASKS, Example, Task
from peftbench.tasks._scoring import chance
from synthetic_table import run


def labelled(metric: str, labels: tuple[str, ...] = ("no", "Yes"), positive: str | None = "Yes") -> Task:
    facts = replace(TASKS["boolq"].facts, labels=labels, positive=positive, metrics=(metric,))
    return replace(TASKS["boolq"], facts=facts)


def rows(*targets: str) -> list[Example]:
    return [Example({"question": "?"}, target) for target in targets]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # Of four rows one is "Yes". Always "no" is right three times.
        ("accuracy", 75.0),
        # Always "Yes": precision 1/4, recall 1, F1 = 2/5; always "no" has 0.
        ("f1", 40.0),
        # Always "no": F1 6/7 and 0, their mean 3/7; always "Yes": 0 and 2/5, mean 1/5.
        ("macro_f1", 300 / 7),
        ("matthews", 0.0),
    ],
)
def test_the_best_label_by_the_main_metric(metric: str, expected: float) -> None:
    assert chance(labelled(metric), rows("no", "no", "YES", "no")) == pytest.approx(expected)


def test_the_answers_of_a_question_are_one_row_of_the_metric_over_questions() -> None:
    """Two questions of two answers: (true, false) and (false, false)."""
    targets = [("a", "true"), ("a", "false"), ("b", "false"), ("b", "false")]
    examples = [Example({"answer": "x"}, target, details={"group": group}) for group, target in targets]
    # F1 of always "true": precision 1/4, recall 1.
    assert chance(TASKS["multirc"], examples) == pytest.approx(40.0)
    facts = replace(TASKS["multirc"].facts, metrics=("multirc_em",))
    # Always "false" judges the second question rightly as a whole.
    assert chance(replace(TASKS["multirc"], facts=facts), examples) == pytest.approx(50.0)


def test_where_rows_have_their_own_choices_it_is_the_best_place() -> None:
    """Places stand for answers up to the fewest choices of a row; words in common count, as in the metric."""
    examples = [
        Example({"query": "q"}, "New York", choices=("Paris", "New York", "Rome")),
        Example({"query": "q"}, "Berlin", choices=("York", "Berlin")),
        Example({"query": "q"}, "Old York", choices=("Old York", "York")),
    ]
    # First places: 0, 0, 1; second places: 1, 1, and F1 of "york" with "old york", 2/3.
    assert chance(TASKS["record"], examples) == pytest.approx(100 * (2 + 2 / 3) / 3)


@pytest.mark.parametrize("name", ["samsum", "gsm8k", "stsb"])
def test_free_text_and_numbers_have_none(name: str) -> None:
    assert chance(TASKS[name], rows("4.2", "3")) is None


def test_subjects_count_alike() -> None:
    """Subject s has two rows of A, subject t one of B: always A has the mean of 100 and 0."""
    examples = [Example({"q": "?"}, a, details={"subject": s}) for a, s in (("A", "s"), ("A", "s"), ("B", "t"))]
    facts = replace(TASKS["mmlu"].facts, metrics=("subject_accuracy",))
    assert chance(replace(TASKS["mmlu"], facts=facts), examples) == pytest.approx(50.0)


def test_a_run_is_at_chance_unless_shown_to_be_better() -> None:
    """1.645 standard errors of 2 are 3.29 points."""
    nan = float("nan")
    cases = [
        (53.28, 2.0, 50.0, True),
        (53.30, 2.0, 50.0, False),
        (40.0, 2.0, 50.0, True),
        (0.0, 0.0, 0.0, True),
        (50.0, nan, 50.0, True),
        (90.0, nan, 50.0, None),
        (90.0, 1.0, nan, None),
        (nan, nan, 50.0, None),
    ]
    table = pd.DataFrame([case[:3] for case in cases], columns=["score", "score_error", "chance"])
    assert [None if found is pd.NA else found for found in at_chance(table)] == [case[3] for case in cases]
    assert at_chance(pd.DataFrame({"status": ["failed"]})).isna().all()


def planted() -> pd.DataFrame:
    """LoRA is at chance on one task with two of three seeds; IA3 never; the other task has no chance."""
    scores = {"lora": (26.0, 25.0, 40.0), "ia3": (60.0, 61.0, 62.0)}
    found = [
        run(method, "emotions", seed, score=score, score_error=2.0, chance=25.0)
        for method, held in scores.items()
        for seed, score in enumerate(held)
    ]
    return pd.DataFrame([*found, *(run(m, "arithmetic", s, chance=None) for m, s in product(scores, range(3)))])


def test_every_table_flags_it() -> None:
    boards = leaderboards(planted())
    assert {row.method: row.at_chance for row in boards[0].rows} == {"lora": {"emotions": 2}, "ia3": {}}
    meaning = "“°” marks a task with runs at chance, not shown to be better than the best constant answer"
    who = "lora (emotions 2 runs)."
    out = io.StringIO()
    Console(file=out, width=500).print(View(boards[0]))
    for text in (out.getvalue(), leaderboards_markdown(boards)):
        assert "30.3°" in text
        assert "61.0°" not in text
        assert meaning in text
        assert who in text
    assert r"30.3$^\circ$" in latex(boards)
    frame = pd.read_csv(io.StringIO(leaderboards_csv(boards)), keep_default_na=False).set_index("method")
    assert frame["at_chance"].to_dict() == {"lora": "emotions 2", "ia3": ""}
    assert boards[0].to_dict()["rows"][1]["at_chance"] == {"emotions": 2}


def test_no_sign_where_none_is_at_chance() -> None:
    text = leaderboards_markdown(leaderboards(planted().assign(chance=None)))
    assert "°" not in text


def test_a_task_with_a_gap_has_no_sign_and_is_told() -> None:
    runs = planted()
    runs = runs[~((runs["method"] == "lora") & (runs["task"] == "emotions") & (runs["seed"] == 2))]
    boards = leaderboards(runs)
    row = next(row for row in boards[0].rows if row.method == "lora")
    assert row.at_chance == {"emotions": 2}
    assert "emotions" not in row.scores
    assert "lora (emotions 2 runs)" in leaderboards_markdown(boards)
