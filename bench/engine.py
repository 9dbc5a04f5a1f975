"""Ratios of the engine's choices to the plain way, measured in one run: `python bench/engine.py` (one thread).

Each pair is timed alternately several times and the medians compared, so that a noisy machine disturbs both alike.
"""

import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from peftbench.core.spec import Training
from peftbench.engine.base_model import Base
from peftbench.engine.families.decoder import forward, pad
from peftbench.engine.generation import generate, in_batches, rank_choices
from peftbench.engine.peak_memory import tracked
from peftbench.engine.phase_meter import Meter
from peftbench.engine.tokenization import Encoded, Encoder, encode_examples
from peftbench.engine.train import Trainer, summed_loss
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.tasks import TASKS
from peftbench.tasks._splits import RowLimits, split

REPEATS = 7


def medians(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each way, taken in turns after one warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(REPEATS + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if round_:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def rows(base: Base, task: str) -> list[Encoded]:
    unit = TASKS[task]
    return encode_examples(
        Encoder(base.tokenizer, unit.facts, 256), split(unit, {}, 64, 0, RowLimits(8, 64), root=None).test
    )


def full_logits_loss(adapted: Adapted, batch: list[Encoded]) -> torch.Tensor:
    ids, mask = pad([row.prompt + row.target for row in batch], 0, "right", torch.device("cpu"))
    targets, _ = pad([[0] * len(row.prompt) + [1] * len(row.target) for row in batch], 0, "right", torch.device("cpu"))
    logits, _, _ = forward(adapted, ids, mask)
    keep = targets[:, 1:].bool()
    return functional.cross_entropy(logits[:, :-1][keep].float(), ids[:, 1:][keep], reduction="sum")


@torch.no_grad()
def naive_rank(adapted: Adapted, batch: list[Encoded]) -> list[int]:
    def best(row: Encoded) -> int:
        losses = [summed_loss(adapted, [Encoded(row.prompt, choice)]).item() / len(choice) for choice in row.choices]
        return losses.index(min(losses))

    return [best(row) for row in batch]


def main() -> None:
    torch.set_num_threads(1)
    base = Base(find("pocket"), "fp32")
    labelled, free = rows(base, "pocket_sentiment"), rows(base, "pocket_data_to_text")
    plain = Adapted(base.model, base.model)
    lora = METHODS["lora"].function(base.model)
    batch = labelled[:16]
    trainer = Trainer(lora, Training(max_steps=8, per_device_train_batch_size=8), 1e-3, "fp32", 0)

    def probed() -> None:
        with tracked(lora.model):
            summed_loss(lora, batch).backward()

    pairs = {
        "loss of 16 rows, forward and backward: all logits / those of labels": (
            lambda: full_logits_loss(lora, batch).backward(),
            lambda: summed_loss(lora, batch).backward(),
        ),
        "ranking 64 rows: row and choice at a time / shared prompt, batches of 32 by length": (
            lambda: naive_rank(plain, labelled),
            lambda: in_batches(labelled, 32, lambda b: rank_choices(plain, b)),
        ),
        "generating for 64 rows: one at a time / batches of 32 by length": (
            lambda: in_batches(free, 1, lambda b: generate(plain, b, [1], 24)),
            lambda: in_batches(free, 32, lambda b: generate(plain, b, [1], 24)),
        ),
        "one step with memory followed / without": (probed, lambda: summed_loss(lora, batch).backward()),
        "8 steps of the loop, each validated on 8 rows, memory probed first / 8 bare steps": (
            lambda: trainer.fit(labelled, labelled[:8], Meter(), lambda _: None),
            lambda: [trainer.backward(labelled[i : i + 8]) for i in range(0, 64, 8)],
        ),
    }
    table = Table("what", "slow s", "fast s", "ratio", title=f"pocket model, 1 thread, median of {REPEATS}")
    for what, (slow, fast) in pairs.items():
        found = medians({"slow": slow, "fast": fast})
        table.add_row(what, f"{found['slow']:.3f}", f"{found['fast']:.3f}", f"{found['slow'] / found['fast']:.1f}x")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
