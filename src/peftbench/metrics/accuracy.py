"""Share of correct labels."""

from peftbench.metrics import Answers, metric


@metric(rowwise=True)
def accuracy(answers: Answers) -> list[float]:
    """100 if the answer is one of the row's references, else 0."""
    return [
        100.0 * (prediction in references)
        for prediction, references in zip(answers.predictions, answers.references, strict=True)
    ]
