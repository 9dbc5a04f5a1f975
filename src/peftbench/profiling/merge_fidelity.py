"""Error of merging: the answers of the merged model, and the largest difference of its logits."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from peftbench.core.spec import Evaluation
from peftbench.engine.base_model import Base
from peftbench.engine.families import model_family
from peftbench.engine.generation import answer_rows, low_precision
from peftbench.engine.tokenization import Encoded
from peftbench.methods import Adapted
from peftbench.tasks import Task

ROWS = 32
"""Number of prompts whose logits are compared."""


def merged_answers(
    adapted: Adapted, base: Base, task: Task, asked: Evaluation, rows: list[Encoded]
) -> tuple[list[str], float] | None:
    """Return the answers of the merged model and the largest difference of a logit of their first tokens.

    Return `None` for a method that cannot be merged.
    """
    fold = adapted.merge or adapted.lossy_merge
    if fold is None:
        return None
    before = _logits(adapted, base, rows[:ROWS])
    with fold():
        difference = (_logits(adapted, base, rows[:ROWS]) - before).abs().max().item()
        return answer_rows(replace(adapted, merge=None), base, task, asked, rows), difference


@torch.no_grad()
def _logits(adapted: Adapted, base: Base, rows: Sequence[Encoded]) -> Tensor:
    """Return the logits of the first answer tokens [rows, vocabulary]; batches of one prompt need no padding."""
    adapted.model.eval()
    calls = model_family(adapted.network.config)
    with low_precision(base):
        return torch.cat([calls.target_logits(adapted, [Encoded(row.prompt, [0])]).float() for row in rows])
