"""Exact match of the final number, the measure of GSM8K."""

import re
from decimal import Decimal

from peftbench.metrics import Answers, metric

# A minus is a sign unless it stands after a digit or a bracket ("10-3"). A comma belongs to a number only before
# groups of three digits.
_NUMBER = re.compile(
    r"(?:(?<![\d)\]])[-\u2212])?\$?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)",
    re.ASCII,
)
_MARKED = re.compile(rf"####[\s*]*({_NUMBER.pattern})", re.ASCII)


def number_of(text: str) -> Decimal | None:
    """The number right after the last `####`, or else the last number of the text; `None` if there is none.

    `$18`, `1,000`, `18.00` and `18.` at the end of a sentence are numbers.
    """
    found = _MARKED.findall(text) or _NUMBER.findall(text)
    return Decimal(found[-1].replace("$", "").replace(",", "").replace("\u2212", "-")) if found else None


@metric(rowwise=True, paper="arXiv:2110.14168")
def final_number(answers: Answers) -> list[float]:
    """100 where the final number of the answer equals that of a reference, else 0."""
    scores = []
    for prediction, references in zip(answers.predictions, answers.references, strict=True):
        number = number_of(prediction)
        scores.append(100.0 * (number is not None and number in [number_of(reference) for reference in references]))
    return scores
