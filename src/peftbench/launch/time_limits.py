"""How long a run may take.

By default ten times its forecast, at least ten minutes. A run that has not ended after ten minutes is forecast, in a
process of its own; until the forecast is there, and for a day where there is none (`peftbench calibrate` has not been
run, or a method of the user's own), a run is stopped only if it has stood still: no progress and next to no processor
time for ten minutes.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from peftbench.core.spec import RunSpec
from peftbench.launch.worker_process import PACKAGE

LEAST = 600.0
TIMES = 10.0
UNKNOWN = 86400.0
"""Seconds for a run whose forecast is not known."""
STILL = 0.6
"""Processor seconds in ten minutes below which a process does nothing."""


def time_text(seconds: float) -> str:
    """Seconds, or hours of a long time, as people write them."""
    return f"{seconds:.0f} s" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Forecasts:
    """Forecasts of runs, made on demand, each once for all seeds."""

    def __init__(self, data: Path | None) -> None:
        self.data = data
        self._found: dict[str, float | None] = {}
        self._asked: dict[str, subprocess.Popen[str]] = {}

    def seconds(self, spec: RunSpec) -> tuple[bool, float | None]:
        """Whether the forecast is there, and what it is, if it is known. The first call asks for it."""
        key = spec.model_copy(update={"seed": 0, "trial": None}).id
        if key not in self._found and key not in self._asked:
            self._asked[key] = self._ask(spec)
        if key in self._asked and self._asked[key].poll() is not None:
            self._found[key] = self._answer(self._asked.pop(key))
        return key in self._found, self._found.get(key)

    def close(self) -> None:
        """End what is under way."""
        for process in self._asked.values():
            process.kill()
            process.communicate()
        self._asked.clear()

    def _ask(self, spec: RunSpec) -> "subprocess.Popen[str]":
        paths = [str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
        given = ["--data", str(self.data)] if self.data else []
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "peftbench.profiling.run_seconds", spec.model_dump_json(), *given],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )

    @staticmethod
    def _answer(process: "subprocess.Popen[str]") -> float | None:
        out, _ = process.communicate()
        try:
            return float(json.loads(out))
        except (TypeError, ValueError):
            return None


@dataclass
class TimeLimit:
    """The time limit of one run that began at `since`, by a monotonic clock. `given`: what the user asked for."""

    spec: RunSpec
    since: float
    given: float | None
    forecasts: Forecasts
    _moved: float = field(init=False)
    _used: float = 0.0

    def __post_init__(self) -> None:
        self.begin(self.since)

    def begin(self, now: float) -> None:
        """The run begins now: what was before was the start of its process."""
        self.since = self._moved = now

    def progress(self, now: float) -> None:
        """The run has told of progress."""
        self._moved = now

    def passed(self, now: float, used: float | None) -> str | None:
        """Why the run must be stopped, if it must; `used`: processor seconds of its process so far."""
        seconds = now - self.since
        if self.given is not None:
            return f"its time limit of {time_text(self.given)}" if seconds > self.given else None
        if seconds <= LEAST:
            self._look(now, used)
            return None
        known, forecast = self.forecasts.seconds(self.spec)
        limit = UNKNOWN if forecast is None else max(LEAST, TIMES * forecast)
        if known and seconds > limit:
            why = "a day, as its forecast is not known" if forecast is None else "ten times its forecast"
            return f"the default time limit of {time_text(limit)} ({why}; --timeout sets another)"
        if self._look(now, used):
            return f"standing still for {time_text(LEAST)}: no progress, no processor time (--timeout sets a limit)"
        return None

    def _look(self, now: float, used: float | None) -> bool:
        """Whether the run has stood still."""
        if used is None:
            return False
        if used - self._used > STILL:
            self._used, self._moved = used, now
        return now - self._moved > LEAST
