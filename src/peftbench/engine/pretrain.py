"""Pretraining of a small language model from scratch: the loop that made the bundled pocket models.

Muon (Jordan et al. 2024) for the matrices within the layers, AdamW for embeddings and norms; a linear warm-up, a
constant rate, then a linear fall to zero over the last third (Hägele et al. 2024, arXiv 2405.18392).
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Rates are per step; `rows_per_step` rows of `row_length` tokens make one step."""

    tokens: int
    row_length: int = 256
    rows_per_step: int = 16
    matrix_rate: float = 0.008
    other_rate: float = 3e-3
    weight_decay: float = 0.02

    @property
    def steps(self) -> int:
        return max(1, self.tokens // (self.row_length * self.rows_per_step))

    def factor(self, step: int) -> float:
        """Share of the full rate at a step: warm-up over 2 %, constant, linear to zero over the last third."""
        done = step / self.steps
        return min(1.0, (step + 1) / (0.02 * self.steps + 1), (1 - done) * 3)


def _optimizers(model: PreTrainedModel, schedule: Schedule) -> list[torch.optim.Optimizer]:
    inner = {n: p for n, p in model.named_parameters() if p.ndim == 2 and "layers." in n}
    outer = [p for n, p in model.named_parameters() if n not in inner]
    matrices = torch.optim.Muon(
        list(inner.values()), lr=schedule.matrix_rate, weight_decay=schedule.weight_decay, adjust_lr_fn="original"
    )
    others = torch.optim.AdamW(outer, lr=schedule.other_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [matrices, others]


def next_token_loss(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of each token given those before it; `tokens` is [rows, length]."""
    with torch.autocast(tokens.device.type, torch.bfloat16):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, rows: torch.Tensor, at_once: int = 32) -> float:
    """Mean loss in nats per token over held-out `rows` [n, length]."""
    model.eval()
    losses = [next_token_loss(model, chunk.to(model.device)).item() * len(chunk) for chunk in rows.split(at_once)]
    model.train()
    return sum(losses) / len(rows)


def pretrain(
    model: PreTrainedModel, rows: Iterator[list[int]], schedule: Schedule, held_out: dict[str, torch.Tensor], log: Path
) -> dict[str, float]:
    """Train `model` in place on token `rows`; append one JSON line every 1 % of the steps to `log`.

    Returns the last held-out losses by name, with `tokens`, `steps` and `seconds`.
    """
    optimizers = _optimizers(model, schedule)
    model.train()
    started, report = time.perf_counter(), {}
    every = max(1, schedule.steps // 100)
    for step in range(schedule.steps):
        batch = torch.tensor([next(rows) for _ in range(schedule.rows_per_step)], device=model.device)
        loss = next_token_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in zip(optimizers, (schedule.matrix_rate, schedule.other_rate), strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule.factor(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % every == 0 or step + 1 == schedule.steps:
            report = {name: held_out_loss(model, tokens) for name, tokens in held_out.items()}
            report |= {"step": step + 1, "train_loss": loss.item(), "seconds": time.perf_counter() - started}
            with log.open("a") as lines:
                lines.write(json.dumps({k: round(v, 4) for k, v in report.items()}) + "\n")
    return report | {"tokens": schedule.steps * schedule.rows_per_step * schedule.row_length}
