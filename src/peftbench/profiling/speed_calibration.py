"""Calibration of training times: fits the seconds per operation, call and byte to timed training steps."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from peftbench.core import device
from peftbench.core.spec import Training
from peftbench.engine.families import model_family
from peftbench.engine.precision import computes_in_bf16
from peftbench.engine.tokenization import Encoded
from peftbench.engine.train import Trainer, trained_in_float32
from peftbench.methods import METHODS
from peftbench.profiling.devices import remember_speed
from peftbench.profiling.dry_run import BatchShape, Counts, fused, rehearse
from peftbench.profiling.parameters_and_flops import on_meta

STEPS = 5
"""Timed steps of each kind; their median is used."""
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full", {}),
    ("lora", {}),
    ("ia3", {}),
    ("adapter", {}),
    ("prefix-tuning", {"hidden": 64}),
)
LENGTHS: tuple[BatchShape, ...] = ((24, 8), (120, 8), (240, 16))
Say = Callable[[str], None]


def models() -> Iterator[tuple[str, Any]]:
    """Yield names and configurations of a small and a medium decoder."""
    from transformers import LlamaConfig

    for name, hidden, layers in (("5 M", 256, 5), ("40 M", 512, 10)):
        yield (
            name,
            LlamaConfig(
                vocab_size=8192,
                hidden_size=hidden,
                intermediate_size=3 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=8,
                num_key_value_heads=4,
            ),
        )


def calibrated(say: Say) -> dict[str, Any]:
    """Time training steps, fit the rates, and store them; return rates, steps and the file."""
    steps: list[dict[str, Any]] = []
    counts: list[Counts] = []
    for name, config in models():
        for method, arguments in KINDS:
            for rows in LENGTHS:
                what = f"{method}, {name}, {sum(rows)} tokens"
                counts.append(rehearsed(config, method, arguments, rows))
                steps.append({"what": what, "seconds": timed(config, method, arguments, rows)})
                say(f"{what}: {steps[-1]['seconds']:.4f} s")
    rates = fit(counts, [step["seconds"] for step in steps])
    for step, count in zip(steps, counts, strict=True):
        step["fitted"] = float(np.dot(rates, count))
    return {"rates": rates, "steps": steps, "file": str(remember_speed(rates))}


def fit(counts: list[Counts], seconds: list[float]) -> tuple[float, float, float]:
    """Return the non-negative seconds per operation, call and byte with the least squared relative errors."""
    # Scaled to values near 1 for numerical stability.
    units = np.array([1e-9, 1e-6, 1e-9])
    rows = np.array(counts, dtype=float) * units / np.array(seconds)[:, None]
    found = nnls(rows, np.ones(len(seconds)))[0] * units
    return (float(found[0]), float(found[1]), float(found[2]))


def rehearsed(config: Any, method: str, arguments: dict[str, Any], rows: BatchShape) -> Counts:
    """Return the counts of a training step."""
    low = computes_in_bf16(config, torch.get_num_threads())
    adapted = on_meta(fused(config), method, arguments, torch.bfloat16 if low else torch.float32)
    trained_in_float32(adapted.model)
    return rehearse(adapted, Training(), [rows], low)[0].counts


def timed(config: Any, method: str, arguments: dict[str, Any], rows: BatchShape) -> float:
    """Return the median seconds of a training step, after two warm-up steps."""
    low = computes_in_bf16(config, torch.get_num_threads())
    network = model_family(config).auto.from_config(config, dtype=torch.bfloat16 if low else torch.float32)
    adapted = METHODS[method].function(network.to(device.current_device()).requires_grad_(False), **arguments)
    trained_in_float32(adapted.model)
    trainer = Trainer(adapted, Training(), 1e-5, "bf16" if low else "fp32", 0)
    optimizer, scheduler = trainer.optimizer(STEPS + 2)
    batch = [Encoded([1] * rows[0], [1] * rows[1])] * trainer.step_rows
    seconds = []
    for _ in range(STEPS + 2):
        started = time.perf_counter()
        trainer.step(batch, optimizer, scheduler)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[2:]))
