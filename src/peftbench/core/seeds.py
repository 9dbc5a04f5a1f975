"""Named random streams: the seed of a run gives an independent seed for each random choice."""

import hashlib
from typing import Literal, get_args

Stream = Literal["subset", "order", "init", "dropout", "validation", "test"]


def stream(seed: int, name: Stream) -> int:
    """Return the seed of a stream, from 0 to 2**63 - 1."""
    return int.from_bytes(hashlib.sha256(f"{name}-{seed}".encode()).digest()[:8], "big") >> 1


HELD_OUT: tuple[Stream, ...] = ("validation", "test")
"""Streams that select the validation and test rows. They use seed 0, so the rows are the same for every run."""


def streams(seed: int) -> dict[str, int]:
    """Return the seed of every stream of a run."""
    return {name: stream(0 if name in HELD_OUT else seed, name) for name in get_args(Stream)}
