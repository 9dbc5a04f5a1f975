"""Restore base weights that a method changes."""

from collections.abc import Callable, Iterable
from typing import Any


def train_in_place(weights: Iterable[Any]) -> Callable[[], None]:
    """Make base weights trainable; return a function that restores them."""
    kept = list(weights)
    undo = put_back(kept)
    for weight in kept:
        weight.requires_grad_(True)
    return undo


def put_back(weights: Iterable[Any]) -> Callable[[], None]:
    """Return a function that restores the current values and types of weights, from copies in host memory.

    float32 weights are restored in the same memory: another alignment can change how products round, and so the last
    digits of a repeated run.
    """
    import torch

    kept = [
        (
            weight,
            weight.data if weight.dtype == torch.float32 else None,
            weight.detach().clone() if weight.is_meta else weight.detach().to("cpu", copy=True),
        )
        for weight in weights
    ]

    def undo() -> None:
        for weight, held, copy in kept:
            weight.data = copy.to(weight.device) if held is None else held.copy_(copy)

    return undo
