"""Pretraining of a small language model from scratch: the loop that made the bundled pocket models.

The loop learns from batches that know their loss: `Text` for a decoder, `Pairs` for an encoder–decoder. Muon (Jordan et
al. 2024) for the matrices within the layers, AdamW for embeddings and norms; a linear warm-up, a constant rate, then a
linear fall to zero over the last third (Hägele et al. 2024, arXiv 2405.18392).
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

Pair = tuple[list[int], list[int]]
"""Token ids of a source and of its target."""
QUERY = ".q.weight"
"""Ends the name of a query matrix of T5."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Rates are per step; `rows_per_step` rows of `row_length` tokens make one step.

    T5's attention does not divide by the root of the head's size: its query matrices are that much smaller instead, and
    so is their `query_rate`. Other models have none.
    """

    tokens: int
    row_length: int = 256
    rows_per_step: int = 16
    matrix_rate: float = 0.008
    query_rate: float = 0.001
    other_rate: float = 3e-3
    weight_decay: float = 0.02

    @property
    def steps(self) -> int:
        return max(1, self.tokens // (self.row_length * self.rows_per_step))

    def factor(self, step: int) -> float:
        """Share of the full rate at a step: warm-up over 2 %, constant, linear to zero over the last third."""
        done = step / self.steps
        return min(1.0, (step + 1) / (0.02 * self.steps + 1), (1 - done) * 3)


class Batch(Protocol):
    """What one step learns from."""

    @property
    def scored(self) -> int:
        """The number of tokens that the loss is the mean of."""

    def loss(self, model: PreTrainedModel) -> Tensor:
        """Mean cross-entropy in nats of the tokens to be said."""


@dataclass(frozen=True)
class Text:
    """Rows of running text [rows, length]: every token but the first is to be said, given those before it."""

    tokens: Tensor

    @classmethod
    def batches(cls, rows: Iterator[list[int]], size: int) -> Iterator[Self]:
        """Batches of `size` rows."""
        while True:
            yield cls(torch.tensor([next(rows) for _ in range(size)]))

    @property
    def scored(self) -> int:
        return self.tokens[:, 1:].numel()

    def loss(self, model: PreTrainedModel) -> Tensor:
        tokens = self.tokens.to(model.device)
        with torch.autocast(tokens.device.type, torch.bfloat16):
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


@dataclass(frozen=True)
class Pairs:
    """Rows of sources and targets, several to a row, none of which sees another.

    `source` [rows, length] and `target` [rows, length of targets] are tokens; `given` is what the decoder is given, the
    target one place later. `source_of` and `target_of` number the pairs of a row from 1; padding is 0.
    """

    source: Tensor
    source_of: Tensor
    given: Tensor
    target: Tensor
    target_of: Tensor

    @classmethod
    def packed(cls, rows: Sequence[Sequence[Pair]], lengths: tuple[int, int], start: int) -> Self:
        """A batch of rows of pairs that fit into `lengths`; the token `start` is given before each target."""
        source_length, target_length = lengths
        kinds = [source_length] * 2 + [target_length] * 3
        batch = cls(*(torch.zeros(len(rows), length, dtype=torch.long) for length in kinds))
        for i, row in enumerate(rows):
            s = t = 0
            for number, (source, target) in enumerate(row, 1):
                read, said = slice(s, s + len(source)), slice(t, t + len(target))
                batch.source[i, read], batch.source_of[i, read] = torch.tensor(source), number
                batch.target[i, said], batch.target_of[i, said] = torch.tensor(target), number
                batch.given[i, said] = torch.tensor([start, *target[:-1]])
                s, t = read.stop, said.stop
        return batch

    @property
    def scored(self) -> int:
        return int(self.target_of.count_nonzero())

    def loss(self, model: PreTrainedModel) -> Tensor:
        source, source_of, given, target, target_of = (
            each.to(model.device) for each in (self.source, self.source_of, self.given, self.target, self.target_of)
        )
        before = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool, device=target.device).tril()
        with torch.autocast(target.device.type, torch.bfloat16):
            read = model.get_encoder()(input_ids=source, attention_mask=_same(source_of, source_of))
            said = model.get_decoder()(
                input_ids=given,
                attention_mask=_same(target_of, target_of) & before,
                encoder_hidden_states=read.last_hidden_state,
                encoder_attention_mask=_same(target_of, source_of),
                use_cache=False,
            )
            # T5 with a tied head scales what comes before it.
            states = said.last_hidden_state[target_of > 0] * model.config.d_model**-0.5
            logits = model.get_output_embeddings()(states)
        return functional.cross_entropy(logits.float(), target[target_of > 0])


def _same(query_of: Tensor, key_of: Tensor) -> Tensor:
    """Which key each query may see [rows, 1, queries, keys]: those of its own pair; padding may see all."""
    query_of, key_of = query_of[:, None, :, None], key_of[:, None, None, :]
    return (query_of == key_of) | (query_of == 0)


def _optimizers(model: PreTrainedModel, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon and AdamW, each of their groups with its full `rate`."""
    head = model.get_output_embeddings()
    inner = {f"{n}.weight": m.weight for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    outer = [p for n, p in model.named_parameters() if n not in inner]
    groups = [
        {"params": [p for n, p in inner.items() if not n.endswith(QUERY)], "rate": schedule.matrix_rate},
        {"params": [p for n, p in inner.items() if n.endswith(QUERY)], "rate": schedule.query_rate},
    ]
    matrices = torch.optim.Muon(
        [group for group in groups if group["params"]], weight_decay=schedule.weight_decay, adjust_lr_fn="original"
    )
    outer_group = {"params": outer, "rate": schedule.other_rate}
    return [matrices, torch.optim.AdamW([outer_group], betas=(0.9, 0.95), weight_decay=0.0)]


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, batches: Sequence[Batch]) -> float:
    """Mean loss in nats per scored token over held-out batches."""
    model.eval()
    losses = [batch.loss(model).item() * batch.scored for batch in batches]
    model.train()
    return sum(losses) / sum(batch.scored for batch in batches)


def pretrain(
    model: PreTrainedModel,
    batches: Iterator[Batch],
    schedule: Schedule,
    held_out: Mapping[str, Sequence[Batch]],
    log: Path,
) -> dict[str, float]:
    """Train `model` in place on a batch a step; append one JSON line every 1 % of the steps to `log`.

    Returns the last held-out losses by name, with `tokens` (padding included), those `scored`, `step` and `seconds`.
    """
    optimizers = _optimizers(model, schedule)
    model.train()
    started, scored, report = time.perf_counter(), 0, {}
    every = max(1, schedule.steps // 100)
    for step in range(schedule.steps):
        batch = next(batches)
        loss = batch.loss(model)
        loss.backward()
        scored += batch.scored
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * schedule.factor(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % every == 0 or step + 1 == schedule.steps:
            report = {name: held_out_loss(model, unseen) for name, unseen in held_out.items()}
            report |= {"step": step + 1, "train_loss": loss.item(), "seconds": time.perf_counter() - started}
            with log.open("a") as lines:
                lines.write(json.dumps({k: round(v, 4) for k, v in report.items()}) + "\n")
    return report | {"tokens": schedule.steps * schedule.rows_per_step * schedule.row_length, "scored": scored}
