"""Named random streams: one seed of a run gives independent numbers for each thing that is drawn."""

import hashlib
from typing import Literal, get_args

Stream = Literal["subset", "order", "init", "dropout", "validation", "test"]


def stream(seed: int, name: Stream) -> int:
    """The seed of a stream, in 0 to 2**63 - 1."""
    return int.from_bytes(hashlib.sha256(f"{name}-{seed}".encode()).digest()[:8], "big") >> 1


HELD_OUT: tuple[Stream, ...] = ("validation", "test")
"""Streams that choose rows no seed may change: they are drawn with the seed 0."""


def streams(seed: int) -> dict[str, int]:
    """The seed of every stream in a run."""
    return {name: stream(0 if name in HELD_OUT else seed, name) for name in get_args(Stream)}
