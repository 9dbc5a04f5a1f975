"""BLEU of the corpus, as sacreBLEU gives it with its defaults (13a tokens, four orders, exponential smoothing)."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from peftbench.metrics import Answers, metric


@lru_cache(maxsize=2**16)
def _statistics(prediction: str, references: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Lengths of answer and nearest reference, then matches and n-grams by order: all that BLEU sums over rows.

    Kept, because a bootstrap asks for the same rows hundreds of times.
    """
    from sacrebleu.metrics.bleu import BLEU  # slow to import

    row = BLEU().corpus_score([prediction], [[reference] for reference in references])
    return np.array([row.sys_len, row.ref_len, *row.counts, *row.totals], dtype=np.int64)


@metric(paper="Post (2018), https://aclanthology.org/W18-6319")
def bleu(answers: Answers) -> float:
    """BLEU over all rows together, which may have different numbers of references."""
    from sacrebleu.metrics.bleu import BLEU

    rows = zip(answers.predictions, answers.references, strict=True)
    total = np.sum([_statistics(prediction, tuple(references)) for prediction, references in rows], axis=0).tolist()
    return float(BLEU.compute_bleu(total[2:6], total[6:], total[0], total[1], smooth_method="exp").score)
