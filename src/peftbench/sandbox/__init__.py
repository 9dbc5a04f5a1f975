"""Execution of untrusted Python programs.

A program runs in a separate sandbox made by bubblewrap (`bwrap`): no network, only the files of the system and of
Python, read-only, one temporary folder of limited size, none of our environment variables, no access to other
processes; limits on time, memory, processes, files and output; a filter of system calls. It can import only the
standard library. If no sandbox can be created, nothing is run (`NotContainedError`), unless the user chose the weaker
mode: with `PEFTBENCH_SANDBOX=rlimit` a program has the limits and a separate folder, but can read and write the user's
files and use the network. `docs/sandbox.md` describes what each mode contains and what it does not.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from peftbench.sandbox.box import Mode, NotContainedError, ResourceLimits
from peftbench.sandbox.processes import ProgramStatus, attend, contained

__all__ = [
    "SWITCH",
    "Mode",
    "NotContainedError",
    "ProgramOutcome",
    "ProgramStatus",
    "ResourceLimits",
    "mode",
    "patiently",
    "run_program",
]

SWITCH = "PEFTBENCH_SANDBOX"
KILLED = 137
Found = TypeVar("Found")


@dataclass(frozen=True)
class ProgramOutcome:
    """The outcome of a program.

    `ok`: exit status 0. `failed`: another exit status (128 plus the number of a signal), also when it ran out of memory
    or CPU time. `timeout` and `overflow`: it was stopped because of its time, or its output, memory or files.
    """

    status: ProgramStatus
    stdout: str
    stderr: str
    seconds: float
    exit_code: int | None = None


def run_program(
    program: str, stdin: str = "", limits: ResourceLimits | None = None, *, prelude: str = "", leave: bool = False
) -> ProgramOutcome:
    """Run the source of a Python program. Raises `NotContainedError` if it cannot be contained.

    `prelude` is run before it in the same namespace; with `leave`, a `return` outside of functions ends the program.
    """
    how, given = mode(), {"program": program, "prelude": prelude, "leave": leave}
    return patiently(lambda: _run(how, given, stdin, limits or ResourceLimits()))


def mode() -> Mode:
    """Return the containment mode. Raises `NotContainedError` if programs cannot be contained."""
    wanted = os.environ.get(SWITCH, "bwrap")
    if wanted == "rlimit":
        return "rlimit"
    if wanted != "bwrap":
        raise NotContainedError(f"{SWITCH} is '{wanted}': it must be bwrap or rlimit")
    if problem := _problem(shutil.which("bwrap")):
        raise NotContainedError(
            f"no program is run: {problem}. Install bubblewrap (apt install bubblewrap) where user namespaces are "
            f"allowed, or set {SWITCH}=rlimit if the programs may use all your files and the network"
        )
    return "bwrap"


@lru_cache
def _problem(bwrap: str | None) -> str | None:
    """Return why no sandbox can be created, determined by a trial, or `None`."""
    if bwrap is None:
        return "bubblewrap (bwrap) is not installed"
    try:
        outcome, _ = _run("bwrap", {"program": "print(6 * 7)"}, "", ResourceLimits(seconds=30.0))
    except NotContainedError as error:
        return str(error)
    return None if outcome.stdout == "42\n" else f"a trial of bwrap ended as {outcome}"


def patiently(attempt: Callable[[], tuple[Found, bool]]) -> Found:
    """Return the outcome of an attempt; if a busy machine may have affected it, repeat it exclusively."""
    outcome, affected = attempt()
    if not affected:
        return outcome
    with _alone():
        return attempt()[0]


@contextmanager
def _alone() -> Iterator[None]:
    """Exclude other processes of this user on this machine; without effect if a file cannot be locked."""
    path = Path(tempfile.gettempdir(), f"peftbench-sandbox-{os.getuid()}.lock")
    with ExitStack() as stack:
        with suppress(OSError):
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            file = stack.enter_context(os.fdopen(number, "rb+"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(how: Mode, given: dict[str, object], stdin: str, limits: ResourceLimits) -> tuple[ProgramOutcome, bool]:
    with contained(how, "program", given, limits, stdin) as process:
        status, spoilt = attend(process)
    process.check_started()
    code = process.process.returncode
    code = KILLED if status == "failed" else 128 - code if code < 0 else code
    ended = status or ("failed" if code else "ok")
    stopped = status in ("timeout", "overflow")
    out, err = process.text("out"), process.text("err")
    return ProgramOutcome(ended, out, err, process.seconds, None if stopped else code), spoilt
