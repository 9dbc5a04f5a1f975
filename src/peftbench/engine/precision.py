"""The precision that a model computes in: bfloat16 where this machine computes the model's shapes faster in it.

A GPU computes in bfloat16 if it has instructions for it. A CPU is measured: a forward and backward pass of one
transformer layer of the model's width, in both precisions. The decision is kept in the cache, by processor, threads,
version of torch and shape, so that all runs of a machine agree. As a program, it decides for one shape:
`python -m peftbench.engine.precision HIDDEN INNER THREADS`.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftbench.core import device, provenance
from peftbench.core.cache_folder import cache_directory
from peftbench.core.files import parse_json, read_bytes, write_atomically

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
Shape = tuple[int, int]
"""Width of the hidden states, and of the feed-forward layer."""
SPEED_UP = 1.7
"""Minimum speed-up of one layer for bfloat16. Training steps gain less: 1.0 at 1.3 of a layer, 1.2 at 1.8."""
REPEATS = 10
ROWS, LENGTH, WIDE = 8, 64, 512
"""A batch of the measurement. Of models wider than `WIDE` it has fewer rows: their products take most of the time."""
WIDEST = 1024
"""Wider layers are measured at this width: products take nearly all the time of both."""


def layer_shape(config: dict[str, Any]) -> Shape | None:
    """Return the shape to measure for a model, from its configuration as plain values; none if that does not tell."""
    text = config.get("text_config") or config
    hidden = next((text[name] for name in ("hidden_size", "d_model", "n_embd") if text.get(name)), None)
    if not isinstance(hidden, int):
        return None
    inner = next((text[name] for name in ("intermediate_size", "d_ff", "ffn_dim", "n_inner") if text.get(name)), None)
    inner = inner if isinstance(inner, int) else 4 * hidden
    scale = min(1.0, WIDEST / hidden)
    return int(hidden * scale), int(inner * scale)


def decided_precision(shape: Shape, threads: int) -> Precision | None:
    """Return what was decided for a shape on this machine; none if that was not measured. Needs no torch."""
    found = _decisions().get(_key(shape, threads))
    return found if found in ("fp32", "bf16") else None


def decide_precision(shape: Shape, threads: int) -> Precision:
    """Return the precision for a shape on this machine; measured, and kept, if it was not decided before."""
    if device.has_gpu():
        return "bf16" if device.supports_bf16() else "fp32"
    if (known := decided_precision(shape, threads)) is not None:
        return known
    found: Precision = "bf16" if bf16_speed_up(shape) >= SPEED_UP else "fp32"
    # Without a cache it is measured anew for each grid.
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(), json.dumps(_decisions() | {_key(shape, threads): found}, indent=1).encode())
    return found


def computes_in_bf16(config: Any, threads: int = 1) -> bool:
    """Return True if this machine computes a model of this `transformers` configuration in bfloat16."""
    shape = layer_shape(config.to_dict())
    return shape is not None and decide_precision(shape, threads) == "bf16"


def bf16_speed_up(shape: Shape) -> float:
    """Measure how many times as fast one layer is in bfloat16 as in float32, forward and backward, on the CPU."""
    import torch

    steps = {dtype: _layer_step(shape, dtype) for dtype in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(REPEATS):
        for dtype, step in steps.items():
            started = time.perf_counter()
            step()
            best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.float32] / best[torch.bfloat16]


def _layer_step(shape: Shape, dtype: "torch.dtype") -> Callable[[], object]:
    """A forward and backward pass of a frozen layer: norm, causal attention, norm, gated feed-forward."""
    import torch
    from torch.nn import functional

    from peftbench.engine.bf16_cpu_attention import by_products

    hidden, inner = shape
    heads = next(count for count in (max(1, hidden // 64), 4, 2, 1) if hidden % count == 0)
    rows = max(1, min(ROWS, ROWS * WIDE * WIDE // (hidden * hidden)))
    generator = torch.Generator().manual_seed(0)

    def weight(out: int, width: int) -> torch.Tensor:
        drawn: torch.Tensor = torch.randn(out, width, generator=generator) * width**-0.5
        return drawn.to(dtype)

    into = [weight(hidden, hidden) for _ in range(4)]
    gate, up, down = weight(inner, hidden), weight(inner, hidden), weight(hidden, inner)
    states = torch.randn(rows, LENGTH, hidden, generator=generator).to(dtype).requires_grad_()

    def norm(x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = functional.rms_norm(x.float(), (hidden,))
        return normed.to(dtype)

    def attend(x: torch.Tensor) -> torch.Tensor:
        query, key, value = (functional.linear(x, w).view(rows, LENGTH, heads, -1).transpose(1, 2) for w in into[:3])
        if dtype == torch.float32:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
        else:
            mixed = by_products(query, key, value, None, None, causal=True)
        return functional.linear(mixed.reshape(rows, LENGTH, hidden), into[3])

    def step() -> object:
        with device.autocast(dtype == torch.bfloat16):
            x = states + attend(norm(states))
            n = norm(x)
            x = x + functional.linear(functional.silu(functional.linear(n, gate)) * functional.linear(n, up), down)
        return torch.autograd.grad(x.float().sum(), states)

    return step


def _key(shape: Shape, threads: int) -> str:
    hidden, inner = shape
    cpu = provenance.cpu_name()
    return f"{cpu}, torch {version('torch')}, {threads} threads, hidden {hidden}, feed-forward {inner}"


def _decisions() -> dict[str, Any]:
    try:
        found = parse_json(read_bytes(_file()))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _file() -> Path:
    return cache_directory() / "precision.json"


if __name__ == "__main__":
    import torch

    hidden_, inner_, threads_ = map(int, sys.argv[1:])
    torch.set_num_threads(threads_)
    sys.stdout.write(decide_precision((hidden_, inner_), threads_) + "\n")
