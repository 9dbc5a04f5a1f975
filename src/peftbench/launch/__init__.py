"""Where runs happen. A launcher takes specs and a store, does the runs, and reports progress.

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
    results that are there and are to be replaced. `precisions`: by model name, that of runs which ask for "auto"; by
    default the launcher chooses (`peftbench.engine.precision`).
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
"""Asked when a run is done: what is to be done now that its result is known."""


class Launcher(Protocol):
    """Does all specs, and those that results bring about; each has a result in the store when it returns.

    It calls `watch` with each event. `KeyboardInterrupt` cancels: it ends what it has started, removes what unfinished
    runs left, and passes the exception on. Raises `StoppedError` where faults of the machine were in the way of runs.
    """

    def __call__(
        self, specs: Sequence[RunSpec], store: Store, options: Options, watch: Watch, after: After | None = None
    ) -> None:
        """Do the specs."""


class StoppedError(UserError):
    """Some runs could not be done because of faults of the machine. They have no result and may be tried again."""


class InterruptedBySignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which stop a grid as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@cache
def launchers() -> dict[str, Launcher]:
    """All launchers by name."""
    found = {}
    for entry in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{entry.name}")
        launch = getattr(module, "launch", None)
        if launch is not None and launch.__module__ == module.__name__:
            found[entry.name] = launch
    return found


def launcher(name: str) -> Launcher:
    """The launcher of a name. Raises `UnknownNameError`."""
    if name not in launchers():
        raise did_you_mean("launcher", name, list(launchers()))
    return launchers()[name]


def signal_exit_status(stop: KeyboardInterrupt) -> int:
    """What a command exits with that was stopped: 128 and the number of the signal, 130 after Ctrl-C."""
    return 128 + (stop.number if isinstance(stop, InterruptedBySignal) else signal.SIGINT)


def ignore(_event: Event) -> None:
    """A watcher that looks away."""
