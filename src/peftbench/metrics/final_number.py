"""Exact match of the final number, the metric of GSM8K."""

import math

from peftbench.metrics import Answers, metric
from peftbench.metrics._numerals import number_of


@metric(rowwise=True, version=2, paper="arXiv:2110.14168")
def final_number(answers: Answers) -> list[float]:
    """100 if the final number of the answer equals that of a reference, else 0. A row without a number in its
    references cannot be scored.
    """
    scores = []
    for prediction, references in zip(answers.predictions, answers.references, strict=True):
        right = {number_of(reference) for reference in references} - {None}
        scores.append(100.0 * (number_of(prediction) in right) if right else math.nan)
    return scores
