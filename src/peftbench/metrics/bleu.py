"""Corpus BLEU as in sacreBLEU, with four orders and exponential smoothing.

The tokenizer of a row depends on the script of its references (`peftbench.metrics._writing_systems.bleu_tokens`); for
Latin it is sacreBLEU's default, 13a.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from peftbench.metrics import Answers, UnavailableError, metric
from peftbench.metrics._writing_systems import bleu_tokens


@lru_cache(maxsize=2**16)
def _statistics(prediction: str, references: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return what BLEU sums over rows: lengths of answer and nearest reference, then matches and n-grams by order.

    Cached because a bootstrap repeats the same rows hundreds of times.
    """
    from sacrebleu.metrics.bleu import BLEU  # slow to import

    row = BLEU(tokenize=bleu_tokens(references)).corpus_score([prediction], [[reference] for reference in references])
    return np.array([row.sys_len, row.ref_len, *row.counts, *row.totals], dtype=np.int64)


@lru_cache(maxsize=2**16)
def _has_a_run(references: tuple[str, ...]) -> bool:
    """Return True if a reference of a row has at least one 4-gram."""
    from sacrebleu.metrics.bleu import BLEU

    counted = BLEU(tokenize=bleu_tokens(references))
    return any(counted.corpus_score([reference], [[reference]]).totals[3] for reference in references)


def _tokens(answers: Answers) -> str:
    found = sorted({bleu_tokens(references) for references in answers.references if any(map(str.strip, references))})
    return f"tokens of sacreBLEU: {', '.join(found)}"


@metric(version=2, light=False, signature=_tokens, paper="Post (2018), https://aclanthology.org/W18-6319")
def bleu(answers: Answers) -> float:
    """BLEU over all rows together, which may have different numbers of references; a row without any does not count.

    Raises `UnavailableError` if no row has a reference, or no reference has four words: BLEU would always be 0.
    """
    from sacrebleu.metrics.bleu import BLEU

    rows = [
        (prediction, tuple(reference for reference in references if reference.strip()))
        for prediction, references in zip(answers.predictions, answers.references, strict=True)
    ]
    rows = [(prediction, references) for prediction, references in rows if references]
    if not rows:
        raise UnavailableError("there is no row with a reference")
    if not any(_has_a_run(references) for _, references in rows):
        raise UnavailableError("no reference has four words, and BLEU counts runs of four: use rouge_l or exact_match")
    found = [_statistics(prediction, references) for prediction, references in rows]
    total = np.sum(found, axis=0).tolist()
    return float(BLEU.compute_bleu(total[2:6], total[6:], total[0], total[1], smooth_method="exp").score)
