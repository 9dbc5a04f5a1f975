"""ROUGE: overlap with a reference in single words, pairs of words and the longest common subsequence.

F-measure on Porter stems, as the library `rouge-score` gives it; of several references the best counts.
"""

from peftbench.metrics import Answers, metric

PAPER = "Lin (2004), https://aclanthology.org/W04-1013"


def _scores(kind: str, answers: Answers) -> list[float]:
    from rouge_score.rouge_scorer import RougeScorer  # slow to import

    scorer = RougeScorer([kind], use_stemmer=True)
    return [
        100.0 * float(scorer.score_multi(references, prediction)[kind].fmeasure)
        for prediction, references in zip(answers.predictions, answers.references, strict=True)
    ]


@metric(rowwise=True, paper=PAPER)
def rouge_1(answers: Answers) -> list[float]:
    """Overlap in single words."""
    return _scores("rouge1", answers)


@metric(rowwise=True, paper=PAPER)
def rouge_2(answers: Answers) -> list[float]:
    """Overlap in pairs of adjacent words."""
    return _scores("rouge2", answers)


@metric(rowwise=True, paper=PAPER)
def rouge_l(answers: Answers) -> list[float]:
    """Longest common subsequence of words."""
    return _scores("rougeL", answers)
