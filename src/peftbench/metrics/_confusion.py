"""Metrics of the confusion matrix: F1, macro-F1 and Matthews' correlation.

Predictions and references are labels, stripped and case-folded; a row has one reference. All answers outside the label
set form one additional class, which is always wrong. The values equal scikit-learn's; this is faster, for a bootstrap.
"""

import numpy as np
import numpy.typing as npt

from peftbench.metrics import Answers, metric


def confusion_matrix(answers: Answers) -> npt.NDArray[np.float64]:
    """Count rows by reference (first axis) and prediction (second); the last class is outside the label set.

    Raises `ValueError` for a reference outside the label set.
    """
    codes = {label.casefold(): code for code, label in enumerate(answers.labels)}
    classes = len(codes) + 1
    right = [references[0] for references in answers.references]
    try:
        true = np.array([codes[reference] for reference in right], dtype=np.intp)
    except KeyError as error:
        row = right.index(error.args[0]) + 1
        raise ValueError(f"row {row}: reference {error} is not one of the labels {', '.join(codes)}") from None
    predicted = np.array([codes.get(prediction, classes - 1) for prediction in answers.predictions], dtype=np.intp)
    matrix: npt.NDArray[np.float64] = np.zeros((classes, classes))
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def _f1_by_class(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the F1 of each class, 0 to 1; NaN for a class in neither references nor predictions."""
    marks = matrix.sum(axis=0) + matrix.sum(axis=1)
    scores: npt.NDArray[np.float64] = np.full(len(matrix), np.nan)
    np.divide(2 * matrix.diagonal(), marks, out=scores, where=marks > 0)
    return scores


@metric(needs=("labels", "positive"))
def f1(answers: Answers) -> float:
    """F1 of the label `answers.positive`; 0 if it is in neither references nor predictions.

    Raises `ValueError` if the positive label is missing or not one of the labels.
    """
    labels = [label.casefold() for label in answers.labels]
    if answers.positive is None or answers.positive.casefold() not in labels:
        raise ValueError(f"binary F1 needs a positive label, one of {', '.join(labels)}")
    value = _f1_by_class(confusion_matrix(answers))[labels.index(answers.positive.casefold())]
    return 100.0 * float(np.nan_to_num(value))


@metric(needs=("labels",))
def macro_f1(answers: Answers) -> float:
    """Mean F1 over the labels that occur in references or predictions."""
    return 100.0 * float(np.nanmean(_f1_by_class(confusion_matrix(answers))[:-1]))


@metric(needs=("labels",), lower=-100.0, paper="Gorodkin (2004), doi:10.1016/j.compbiolchem.2004.09.006")
def matthews(answers: Answers) -> float:
    """Multiclass Matthews correlation; 0 if all references or all answers are equal."""
    matrix = confusion_matrix(answers)
    rows, given, asked = matrix.sum(), matrix.sum(axis=0), matrix.sum(axis=1)
    covariance = rows * matrix.trace() - asked @ given
    spread = (rows**2 - given @ given) * (rows**2 - asked @ asked)
    return 100.0 * float(covariance / np.sqrt(spread)) if spread > 0 else 0.0
