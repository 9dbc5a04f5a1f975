"""Metrics of MultiRC. Rows are candidate answers; `details["group"]` is the question of a row."""

from peftbench.metrics import Answers, grouped_rows, metric
from peftbench.metrics._confusion import f1

PAPER = "Khashabi et al. (2018), https://aclanthology.org/N18-1023"


@metric(needs=("labels", "positive"), paper=PAPER)
def multirc_f1a(answers: Answers) -> float:
    """F1 of the positive label over the answers of all questions together: F1a, not the mean over questions, F1m."""
    return float(f1(answers))


@metric(rowwise=True, needs=("group",), paper=PAPER)
def multirc_em(answers: Answers) -> list[float]:
    """One score per question: 100 if all its answers are classified correctly, else 0.

    Raises `ValueError` if a row has no question.
    """
    if not all("group" in details for details in answers.details) or not answers.details:
        raise ValueError("multirc_em needs the question of each row, as details['group']")
    right = [given in wanted for given, wanted in zip(answers.predictions, answers.references, strict=True)]
    return [100.0 * all(right[row] for row in rows) for rows in grouped_rows(answers)]
