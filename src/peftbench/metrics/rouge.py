"""ROUGE: overlap with a reference in single words, pairs of words and the longest common subsequence.

F-measure of the library `rouge-score`; of several references the best is used. The library's tokenizer drops non-ASCII
characters, so words are found by `words_of`, for any script.
"""

import math
from functools import lru_cache
from typing import Any

from peftbench.metrics import Answers, metric
from peftbench.metrics._writing_systems import words_of

PAPER = "Lin (2004), https://aclanthology.org/W04-1013"
VERSION = 2


class Stems:
    """Tokenizer with the stemming of `rouge-score`: Porter stems of ASCII words with more than three letters."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import porter

        self._stem = lru_cache(maxsize=2**16)(porter.PorterStemmer().stem)

    def tokenize(self, text: str) -> list[str]:
        """Split a text into stemmed words."""
        return [self._stem(word) if len(word) > 3 and word.isascii() else word for word in words_of(text)]


@lru_cache
def _scorer(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # slow to import

    return RougeScorer([kind], tokenizer=Stems())


def _scores(kind: str, answers: Answers) -> list[float]:
    """Compute the score of each row; NaN if no reference has a word."""
    scores = []
    for prediction, references in zip(answers.predictions, answers.references, strict=True):
        right = [reference for reference in references if words_of(reference)]
        scores.append(100.0 * float(_scorer(kind).score_multi(right, prediction)[kind].fmeasure) if right else math.nan)
    return scores


@metric(rowwise=True, version=VERSION, light=False, paper=PAPER)
def rouge_1(answers: Answers) -> list[float]:
    """Overlap in single words."""
    return _scores("rouge1", answers)


@metric(rowwise=True, version=VERSION, light=False, paper=PAPER)
def rouge_2(answers: Answers) -> list[float]:
    """Overlap in pairs of adjacent words."""
    return _scores("rouge2", answers)


@metric(rowwise=True, version=VERSION, light=False, paper=PAPER)
def rouge_l(answers: Answers) -> list[float]:
    """Longest common subsequence of words."""
    return _scores("rougeL", answers)
