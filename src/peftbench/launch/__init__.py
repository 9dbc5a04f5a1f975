"""Where runs happen. A launcher takes specs and a store, and tells a watcher what goes on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftbench.spec import RunSpec


@dataclass(frozen=True)
class Event:
    """What a worker tells: a run began, moved on, or ended (its status in `data`), or its process died."""

    kind: Literal["start", "step", "done", "died"]
    worker: int
    spec: RunSpec
    data: dict[str, Any] = field(default_factory=dict)


Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Options:
    """How runs are done. `workers` 0: as many as this machine suits.

    `threads` of each worker: one suits small models, and another number changes the last digits of results on a CPU.
    """

    data: Path | None = None
    workers: int = 0
    threads: int = 1
    keep_adapters: bool = False
    plugins: tuple[Path, ...] = ()


def ignore(_event: Event) -> None:
    """A watcher that looks away."""
