"""Contained processes: starting them, watching them until they end or are stopped, and killing all their children."""

import fcntl
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

from peftbench.sandbox.box import ENVIRONMENT, TEMPORARY, Mode, NotContainedError, ResourceLimits, command
from peftbench.sandbox.resource_usage import Usage, usage

ProgramStatus = Literal["ok", "failed", "timeout", "overflow"]
MODULES = {
    "program": (),
    "call": ("program_process",),
    "serve": ("program_process",),
    "test": ("program_process", "assertion_process"),
}
"""Files of this folder whose source a role needs; the last one implements it."""
PATIENCE = 10
"""Maximum wall-clock time as a multiple of the limit, for a program that waits for a CPU."""
FIRST_LOOK, LAST_LOOK = 0.1, 0.5
"""Seconds between two checks of resource usage, increasing with the run time of the program."""


@dataclass
class Contained:
    """A contained process. `printed` has "out", "err" and "report", whose first byte confirms that limits are set."""

    process: subprocess.Popen[bytes]
    streams: Mapping[str, IO[bytes]]
    limits: ResourceLimits
    started: float = field(default_factory=time.monotonic)
    printed: dict[str, bytes] = field(default_factory=lambda: {"out": b"", "err": b"", "report": b""})

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def report(self) -> Any:
        """The report as a JSON value; `None` if it is empty or invalid."""
        line, end, _ = self.printed["report"][1:].partition(b"\n")
        try:
            return json.loads(line) if end else None
        except (ValueError, RecursionError):
            return None

    @property
    def overflows(self) -> bool:
        printed = len(self.printed["out"]) + len(self.printed["err"])
        return max(printed, len(self.printed["report"])) > self.limits.output_bytes

    def text(self, stream: str) -> str:
        return self.printed[stream].decode("utf-8", "replace")

    def check_started(self) -> None:
        """Raise `NotContainedError` if the process ended before its limits were set."""
        if not self.printed["report"]:
            why = " ".join(self.text("err").split())[-300:]
            raise NotContainedError(
                f"the sandbox did not start: {why or 'it was too slow, or ended without a message'}"
            )


@contextmanager
def contained(
    how: Mode,
    part: str,
    given: Mapping[str, Any],
    limits: ResourceLimits,
    stdin: str = "",
    *,
    channel: int | None = None,
) -> Iterator[Contained]:
    """Start a process with a role (`code_inside_sandbox.py`); at exit it and its children are killed."""
    line, facts = command(how, limits)
    modules = {f"{__package__}.{name}": _text_of(name) for name in MODULES[part]}
    whole = {"program": "", "prelude": "", "leave": False, "modules": modules, "part": part, "channel": channel}
    heard, tell = os.pipe()
    with (
        os.fdopen(heard, "rb") as report,
        _sealed(json.dumps(whole | facts | dict(given))) as text,
        _sealed(stdin) as feed,
        tempfile.TemporaryDirectory(prefix="peftbench-", ignore_cleanup_errors=True) as folder,
    ):
        try:
            process = subprocess.Popen(
                [*line, str(text.fileno()), str(tell)],
                stdin=feed,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT | {"HOME": TEMPORARY if how == "bwrap" else folder},
                cwd=folder,
                pass_fds=(text.fileno(), tell, *([] if channel is None else [channel])),
                start_new_session=True,
            )
        except OSError as error:
            raise NotContainedError(f"the sandbox could not be started: {error}") from error
        finally:
            os.close(tell)
        assert process.stdout
        assert process.stderr
        with process:
            try:
                yield Contained(process, {"out": process.stdout, "err": process.stderr, "report": report}, limits)
            finally:
                # Kill the process group before waiting, since its id may be reused afterwards; a sandbox ends with
                # its bubblewrap process.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@lru_cache
def _text_of(name: str) -> str:
    return Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")


def _sealed(text: str) -> IO[bytes]:
    """Return a sealed file in memory, which can only be read.

    A pipe would have to be fed while output is read; a file on disk could be reopened for writing through `/proc`.
    """
    file = os.fdopen(os.memfd_create("given", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    file.write(text.encode("utf-8", "replace"))
    file.seek(0)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return file


def attend(first: Contained, *others: Contained) -> tuple[ProgramStatus | None, bool]:
    """Read the output of processes until the first has ended or reported a line, or one exceeds a limit.

    Return why they were stopped, if they were, and whether a busy machine may be the cause.
    """
    together, look = (first, *others), Look(first.limits, first.started)
    with selectors.DefaultSelector() as selector:
        for each in together:
            for name, stream in each.streams.items():
                selector.register(stream, selectors.EVENT_READ, (each, name))
        while True:
            for key, _ in selector.select(look.pause(waiting=bool(selector.get_map()))):
                each, name = key.data
                piece = os.read(key.fd, 1 << 16)
                each.printed[name] += piece
                if not piece:
                    selector.unregister(key.fd)
            open_ = {id(key.data[0]) for key in selector.get_map().values()}
            if b"\n" in first.printed["report"] or (id(first) not in open_ and first.process.poll() is not None):
                return None, False
            if any(each.overflows for each in together):
                return "overflow", False
            if look.due() and (found := look.at(together)):
                return found, found == "timeout" and look.starved


@dataclass
class Look:
    """The schedule of checks of resource usage, and their evaluation."""

    limits: ResourceLimits
    started: float
    next: float = FIRST_LOOK
    waited: float | None = 0.0

    def pause(self, waiting: bool) -> float:
        """Return the seconds until the next check; short if there is no output to read and a process may end."""
        left = max(0.0, self.started + self.next - time.monotonic())
        return left if waiting else min(left, FIRST_LOOK / 10)

    def due(self) -> bool:
        return time.monotonic() >= self.started + self.next

    def at(self, processes: Sequence[Contained]) -> ProgramStatus | None:
        """Return why the processes must be stopped, or `None`."""
        elapsed = time.monotonic() - self.started
        each = [usage(one.process.pid, TEMPORARY) for one in processes]
        self.next = elapsed + min(LAST_LOOK, max(FIRST_LOOK, elapsed / 5))
        self.waited = (
            None if any(one.waited_seconds is None for one in each) else sum(o.waited_seconds or 0.0 for o in each)
        )
        if status := next((found for one in each if (found := self._excess(one))), None):
            return status
        # Time spent waiting for a CPU is not counted, up to a maximum.
        own = elapsed - min(self.waited or 0.0, elapsed)
        return "timeout" if own > self.limits.seconds or elapsed > PATIENCE * self.limits.seconds else None

    def _excess(self, used: Usage) -> ProgramStatus | None:
        if used.cpu_seconds > self.limits.cpu_seconds + 1:
            return "failed"
        if used.memory_bytes > self.limits.resident_bytes or used.files > self.limits.files:
            return "overflow"
        return None

    @property
    def starved(self) -> bool:
        """Return True if processes waited for a CPU for a large part of their time, or if that is unknown."""
        return self.waited is None or self.waited > 0.1 * self.limits.seconds
