"""Where runs happen. A launcher takes specs and a store, and tells a watcher what goes on."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.results.store import Stamps


@dataclass(frozen=True)
class Event:
    """What became of a run: it began, moved on, or ended (its status in `data`); its process died; a fault of the
    machine was in its way; or another launcher has done it.
    """

    kind: Literal["start", "step", "done", "died", "fault", "elsewhere"]
    worker: int
    spec: RunSpec
    data: dict[str, Any] = field(default_factory=dict)


Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Options:
    """How runs are done. `workers` 0: as many as this machine suits.

    `threads` of each worker: one suits small models, and another number changes the last digits of results on a CPU.
    `timeout`: seconds that a run may take; by default `peftbench.launch.time_limits` decides. `replace`: by run id, the
    results that are there and are to be replaced.
    """

    data: Path | None = None
    workers: int = 0
    threads: int = 1
    keep_adapters: bool = False
    plugins: tuple[Path, ...] = ()
    timeout: float | None = None
    replace: Mapping[str, Stamps] = field(default_factory=dict)


class StoppedError(UserError):
    """Some runs could not be done because of faults of the machine. They have no result and may be tried again."""


class InterruptedBySignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which stop a grid as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def signal_exit_status(stop: KeyboardInterrupt) -> int:
    """What a command exits with that was stopped: 128 and the number of the signal, 130 after Ctrl-C."""
    return 128 + (stop.number if isinstance(stop, InterruptedBySignal) else signal.SIGINT)


def ignore(_event: Event) -> None:
    """A watcher that looks away."""
