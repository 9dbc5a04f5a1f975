"""Running Python programs that nobody has read.

A program gets a box of its own, made by bubblewrap (`bwrap`): no network, no files but the system's own and Python's,
read-only, one temporary folder of bounded size, no environment of ours, no sight of other processes; bounds on time,
memory, processes, files and output; a filter of system calls. It sees the standard library alone. Where no box can be
made, nothing is run (`RefusedError`), unless the user chose the weaker mode by name: with `PEFTBENCH_SANDBOX=rlimit` a
program has the bounds and a folder of its own, but can read and write what the user can, and use the network.
`docs/sandbox.md` says what each mode contains and what it does not.
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
    """What became of a program. `ok`: it ended with exit status 0; `failed`: with another (128 and its number for a
    signal), as when it ran out of memory or processor time; `timeout` and `overflow`: it was stopped, after too long a
    time or for too much output, memory or files.
    """

    status: ProgramStatus
    stdout: str
    stderr: str
    seconds: float
    exit_code: int | None = None


def run_program(
    program: str, stdin: str = "", limits: ResourceLimits | None = None, *, prelude: str = "", leave: bool = False
) -> ProgramOutcome:
    """Run the text of a Python program. Raises `RefusedError` if it cannot be contained.

    `prelude` is run before it, in its place; with `leave`, a `return` outside of functions ends it.
    """
    how, given = mode(), {"program": program, "prelude": prelude, "leave": leave}
    return patiently(lambda: _run(how, given, stdin, limits or ResourceLimits()))


def mode() -> Mode:
    """How programs are contained here. Raises `RefusedError` if they cannot be."""
    wanted = os.environ.get(SWITCH, "bwrap")
    if wanted == "rlimit":
        return "rlimit"
    if wanted != "bwrap":
        raise NotContainedError(f"{SWITCH} is '{wanted}': it may be bwrap or rlimit")
    if problem := _problem(shutil.which("bwrap")):
        raise NotContainedError(
            f"no program is run: {problem}. Install bubblewrap (apt install bubblewrap) where user namespaces are "
            f"allowed, or set {SWITCH}=rlimit if the programs may use all your files and the network"
        )
    return "bwrap"


@lru_cache
def _problem(bwrap: str | None) -> str | None:
    """Why no box can be made, found out by making one."""
    if bwrap is None:
        return "bubblewrap (bwrap) is not installed"
    try:
        outcome, _ = _run("bwrap", {"program": "print(6 * 7)"}, "", ResourceLimits(seconds=30.0))
    except NotContainedError as error:
        return str(error)
    return None if outcome.stdout == "42\n" else f"a trial of bwrap ended as {outcome}"


def patiently(attempt: Callable[[], tuple[Found, bool]]) -> Found:
    """What an attempt finds. One that a busy machine may have spoilt, as it says itself, is made again, alone."""
    found, spoilt = attempt()
    if not spoilt:
        return found
    with _alone():
        return attempt()[0]


@contextmanager
def _alone() -> Iterator[None]:
    """Of all processes of this user on this machine, one at a time; where a file cannot be locked, nobody waits."""
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
