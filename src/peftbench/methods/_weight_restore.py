"""Weights of the base itself that a method changes, and gives back as they were."""

from collections.abc import Callable, Iterable
from typing import Any


def train_in_place(weights: Iterable[Any]) -> Callable[[], None]:
    """Let weights of the base be trained where they stand; what is returned puts them back."""
    kept = list(weights)
    undo = put_back(kept)
    for weight in kept:
        weight.requires_grad_(True)
    return undo


def put_back(weights: Iterable[Any]) -> Callable[[], None]:
    """What gives weights the values and the type they have now. The copies stand in the host's memory meanwhile.

    Those of float32, which are trained where they lie, get them in the same memory: elsewhere it may be aligned
    otherwise, and then products round otherwise, so that the same run would find other last digits.
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
