"""Launchers. A launcher takes specs and a store, executes the runs and reports progress.

A launcher is a file of this folder with a function `launch` (see `Launcher`); there is no list to add it to.
"""

import pkgutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from peftbench.core.registry import UserError, did_you_mean
from peftbench.core.spec import RunResult, RunSpec
from peftbench.engine.precision import Precision
from peftbench.results.store import Stamps, Store


@dataclass(frozen=True)
class Event:
    """An event of a run: it started, made a step, or ended (its status is in `data`); its process died; a fault of the
    machine prevented it; or another launcher has finished it.
    """

    kind: Literal["start", "step", "done", "died", "fault", "elsewhere"]
    worker: int
    spec: RunSpec
    data: dict[str, Any] = field(default_factory=dict)


Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Options:
    """How runs are executed. `workers` 0: chosen for this machine.

    `threads` of each worker: one suits small models, and another number changes the last digits of results on a CPU.
    `timeout`: maximum seconds of a run; by default `peftbench.launch.time_limits` decides. `replace`: by run id, the
    existing results to replace. `precisions`: by model name, the precision of runs with "auto"; by default the launcher
    chooses it (`peftbench.engine.precision`).
    """

    data: Path | None = None
    workers: int = 0
    threads: int = 1
    keep_adapters: bool = False
    plugins: tuple[Path, ...] = ()
    timeout: float | None = None
    replace: Mapping[str, Stamps] = field(default_factory=dict)
    precisions: Mapping[str, Precision] = field(default_factory=dict)


After = Callable[[RunResult], Sequence[RunSpec]]
"""Called when a run has ended; returns the runs that can start because of its result."""


class Launcher(Protocol):
    """Executes all specs and the runs that `after` adds; each has a result in the store when it returns.

    It calls `watch` with each event. `KeyboardInterrupt` cancels: it ends its processes, removes the files of
    unfinished runs, and raises the exception again. Raises `StoppedError` if faults of the machine prevented runs.
    """

    def __call__(
        self, specs: Sequence[RunSpec], store: Store, options: Options, watch: Watch, after: After | None = None
    ) -> None:
        """Execute the specs."""


class StoppedError(UserError):
    """Faults of the machine prevented some runs. They have no result and may be tried again."""


class InterruptedBySignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which stop a grid as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@cache
def launchers() -> dict[str, Launcher]:
    """Return all launchers by name."""
    found = {}
    for entry in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{entry.name}")
        launch = getattr(module, "launch", None)
        if launch is not None and launch.__module__ == module.__name__:
            found[entry.name] = launch
    return found


def launcher(name: str) -> Launcher:
    """Return the launcher of a name. Raises `UnknownNameError`."""
    if name not in launchers():
        raise did_you_mean("launcher", name, list(launchers()))
    return launchers()[name]


def signal_exit_status(stop: KeyboardInterrupt) -> int:
    """Return the exit status after an interrupt: 128 plus the number of the signal; 130 after Ctrl-C."""
    return 128 + (stop.number if isinstance(stop, InterruptedBySignal) else signal.SIGINT)


def ignore(_event: Event) -> None:
    """Ignore an event."""
