"""Correlation of predicted numbers on a scale with the references.

The score is the correlation over the rows with a valid number, times the share of these rows. Invalid answers are not
replaced. Constant answers score 0.
"""

import numpy as np
import numpy.typing as npt

from peftbench.metrics import Answers, metric, parsed_number

RankArray = npt.NDArray[np.float64]


def _numbers(answers: Answers) -> tuple[RankArray, RankArray]:
    """Return the predicted and reference values of the rows with a valid answer.

    Raises `ValueError` without a scale, or for a reference outside it.
    """
    if answers.scale is None:
        raise ValueError("a correlation needs the scale of the numbers")
    low, high = answers.scale
    given, right = [], []
    for row, (prediction, references) in enumerate(zip(answers.predictions, answers.references, strict=True), 1):
        value, wanted = parsed_number(prediction, answers.scale), parsed_number(references[0], answers.scale)
        if wanted is None:
            raise ValueError(f"row {row}: reference '{references[0]}' is no number from {low:g} to {high:g}")
        if value is not None:
            given.append(value)
            right.append(wanted)
    return np.array(given), np.array(right)


def _correlation(x: RankArray, y: RankArray, rows: int) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return 100.0 * float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1)) * len(x) / rows


def _ranks(values: RankArray) -> RankArray:
    """Return ranks from 1; equal values get their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: RankArray = (count.cumsum() - (count - 1) / 2)[place]
    return ranks


@metric(needs=("scale",), lower=-100.0, paper="Pearson (1895), doi:10.1098/rspl.1895.0041")
def pearson(answers: Answers) -> float:
    """Linear correlation, Pearson's r."""
    return _correlation(*_numbers(answers), len(answers.predictions))


@metric(needs=("scale",), lower=-100.0, paper="Spearman (1904), doi:10.2307/1412159")
def spearman(answers: Answers) -> float:
    """Correlation of the ranks, Spearman's rho; equal values share a rank."""
    given, right = _numbers(answers)
    return _correlation(_ranks(given), _ranks(right), len(answers.predictions))
