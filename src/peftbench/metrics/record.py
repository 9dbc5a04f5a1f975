"""Metrics of ReCoRD, the same as those of SQuAD: word F1 and exact match with the best reference.

Texts are compared in lower case, without punctuation and articles.
"""

import re
import string
from collections import Counter

from peftbench.metrics import Answers, metric

PAPER = "arXiv:1810.12885"
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _f1(given: list[str], right: list[str]) -> float:
    same = (Counter(given) & Counter(right)).total()
    return 2 * same / (len(given) + len(right)) if same else 0.0


@metric(rowwise=True, paper=PAPER)
def record_f1(answers: Answers) -> list[float]:
    """F1 of the words of the answer and of the best reference."""
    rows = zip(answers.predictions, answers.references, strict=True)
    return [100.0 * max(_f1(_words(given), _words(right)) for right in references) for given, references in rows]


@metric(rowwise=True, paper=PAPER)
def record_em(answers: Answers) -> list[float]:
    """100 if the answer equals a reference, else 0."""
    rows = zip(answers.predictions, answers.references, strict=True)
    return [100.0 * any(_words(given) == _words(right) for right in references) for given, references in rows]
