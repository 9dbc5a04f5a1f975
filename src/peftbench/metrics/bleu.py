"""BLEU of the corpus, as sacreBLEU gives it with four orders and exponential smoothing.

The tokens of a row are those that fit the script of its references (`peftbench.metrics.scripts.bleu_tokens`): for Latin
sacreBLEU's default, 13a.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from peftbench.metrics import Answers, UnavailableError, metric
from peftbench.metrics.scripts import bleu_tokens


@lru_cache(maxsize=2**16)
def _statistics(prediction: str, references: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Lengths of answer and nearest reference, then matches and n-grams by order: all that BLEU sums over rows.

    Kept, because a bootstrap asks for the same rows hundreds of times.
    """
    from sacrebleu.metrics.bleu import BLEU  # slow to import

    row = BLEU(tokenize=bleu_tokens(references)).corpus_score([prediction], [[reference] for reference in references])
    return np.array([row.sys_len, row.ref_len, *row.counts, *row.totals], dtype=np.int64)


def _tokens(answers: Answers) -> str:
    found = sorted({bleu_tokens(references) for references in answers.references if any(map(str.strip, references))})
    return f"tokens of sacreBLEU: {', '.join(found)}"


@metric(version=2, light=False, signature=_tokens, paper="Post (2018), https://aclanthology.org/W18-6319")
def bleu(answers: Answers) -> float:
    """BLEU over all rows together, which may have different numbers of references; a row without any does not count.

    Raises `UnavailableError` if no row has a reference.
    """
    from sacrebleu.metrics.bleu import BLEU

    rows = [
        (prediction, tuple(reference for reference in references if reference.strip()))
        for prediction, references in zip(answers.predictions, answers.references, strict=True)
    ]
    found = [_statistics(prediction, references) for prediction, references in rows if references]
    if not found:
        raise UnavailableError("there is no row with a reference")
    total = np.sum(found, axis=0).tolist()
    return float(BLEU.compute_bleu(total[2:6], total[6:], total[0], total[1], smooth_method="exp").score)
