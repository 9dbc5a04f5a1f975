"""Share of free texts that equal a reference."""

from peftbench.metrics import Answers, metric


@metric(rowwise=True)
def exact_match(answers: Answers) -> list[float]:
    """100 if the answer equals a reference except for surrounding white space, else 0. Case-sensitive."""
    return [
        100.0 * (prediction.strip() in {reference.strip() for reference in references})
        for prediction, references in zip(answers.predictions, answers.references, strict=True)
    ]
