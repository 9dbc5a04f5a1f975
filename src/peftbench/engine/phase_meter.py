"""Seconds and joules of the phases of a run."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from peftbench.core import device
from peftbench.engine.energy import Energy, counter


class Meter:
    """Seconds and joules of named phases, kept apart; a phase ends when the device has finished its work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.energy = Energy(counter())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time within to a phase."""
        device.synchronize()
        with self.energy.phase(name):
            started = time.perf_counter()
            try:
                yield
            finally:
                device.synchronize()
                self.seconds[name] += time.perf_counter() - started
