"""Named random streams: one seed of a run gives independent numbers for each thing that is drawn."""

import hashlib
from typing import Literal

Stream = Literal["subset", "order", "init", "dropout", "validation", "test"]


def stream(seed: int, name: Stream) -> int:
    """The seed of a stream, in 0 to 2**63 - 1."""
    return int.from_bytes(hashlib.sha256(f"{name}-{seed}".encode()).digest()[:8], "big") >> 1
