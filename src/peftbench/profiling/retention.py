"""Retention: the loss on general text of the base and of the tuned model."""

import hashlib
import math
import re
from pathlib import Path

import torch

from peftbench.core.registry import UserError
from peftbench.core.spec import Evaluation
from peftbench.engine.base_model import Base
from peftbench.engine.families import max_positions, model_family
from peftbench.engine.generation import in_batches, low_precision
from peftbench.engine.tokenization import Encoded
from peftbench.methods import Adapted

GENERAL = Path(__file__).parent / "retention_text.txt"
"""The default text; `retention_text.md` lists its sources."""
WORDS = 128
"""Words per passage."""
LENGTH = 256
"""Maximum number of tokens of a passage."""
AT_ONCE = 4
"""Passages per batch; few, since logits are computed for every token."""


def passages(text: str) -> list[str]:
    """Split a text into passages of `WORDS` words; a remainder below half of that is dropped unless it is all."""
    words = re.findall(r"\S+\s*", text)
    cut = ["".join(words[start : start + WORDS]).strip() for start in range(0, len(words), WORDS)]
    return cut[:-1] if len(cut) > 1 and 2 * len(cut[-1].split()) < WORDS else cut


def base_loss(base: Base, asked: Evaluation) -> float:
    """Return the loss of the base in nats per token; it is computed once per text."""
    key = asked.retention_version
    if key not in base.text_losses:
        base.text_losses[key] = text_loss(Adapted(base.model, base.model), base, _rows(base, asked))
    return base.text_losses[key]


def loss_change(adapted: Adapted, base: Base, asked: Evaluation) -> tuple[float | None, list[str]]:
    """Return the rise of the loss of the unmerged adapted model over its base, or `None` and the reason in a list."""
    rows, most = _rows(base, asked), max_positions(base.config)
    if most is not None and base.shape.positions(adapted, rows, 0) > most:
        return None, [f"retention: {adapted.virtual_tokens} virtual tokens leave no room for its passages"]
    change = text_loss(adapted, base, rows) - base_loss(base, asked)
    return (change, []) if math.isfinite(change) else (None, ["retention: the loss on general text is not finite"])


@torch.no_grad()
def text_loss(adapted: Adapted, base: Base, rows: list[Encoded]) -> float:
    """Return the mean cross-entropy in nats per target token, without dropout."""
    adapted.model.eval()

    def batch_losses(batch: list[Encoded]) -> list[float]:
        logits = model_family(adapted.network.config).target_logits(adapted, batch).float()
        targets = torch.tensor([token for row in batch for token in row.target], device=logits.device)
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return [part.sum().item() for part in each.split([len(row.target) for row in batch])]

    with low_precision(base):
        total: float = sum(in_batches(rows, AT_ONCE, batch_losses))
    return total / sum(len(row.target) for row in rows)


def _rows(base: Base, asked: Evaluation) -> list[Encoded]:
    most, encoder = min(LENGTH, (max_positions(base.config) or 2 * LENGTH) // 2), base.shape.encoder
    rows = [encoder.passage(base.tokenizer, text, most) for text in passages(_text(asked))]
    if not (scored := [row for row in rows if row.prompt and row.target]):
        raise UserError(f"{asked.retention_text}: too short a text for retention")
    return scored


def _text(asked: Evaluation) -> str:
    """Return the default or the user's text. Raises `UserError` if the user's file has changed."""
    if asked.retention_text is None:
        return GENERAL.read_text(encoding="utf-8")
    content = Path(asked.retention_text).read_bytes()
    if hashlib.sha256(content).hexdigest()[:12] != asked.retention_version:
        raise UserError(f"{asked.retention_text} has changed since the grid was read: repeat the command")
    return content.decode()
