"""Running Python programs that nobody has read.

A program gets a box of its own, made by bubblewrap (`bwrap`): no network, no files but the system's own and Python's,
read-only, one temporary folder of bounded size, no environment of ours, no sight of other processes; bounds on time,
memory, processes, files and output. It sees the standard library alone. Where no box can be made, nothing is run
(`RefusedError`), unless the user chose the weaker mode by name: with `PEFTBENCH_SANDBOX=rlimit` a program has the
bounds and a folder of its own, but can read and write what the user can, and use the network. `docs/design.md` says
what each mode contains and what it does not.
"""

import fcntl
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

Status = Literal["ok", "failed", "timeout", "overflow"]
Mode = Literal["bwrap", "rlimit"]
SWITCH = "PEFTBENCH_SANDBOX"
INSIDE = Path(__file__).with_name("inside.py")
TEMPORARY = "/tmp"  # noqa: S108 (the one inside the box)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}


class RefusedError(Exception):
    """No program was run, because it could not be contained; the message says why and what to do."""


@dataclass(frozen=True)
class Limits:
    """Bounds on a program: seconds by the clock and of a processor, bytes of address space of each process, number of
    processes and threads, bytes of its temporary folder and of each file, bytes printed.
    """

    seconds: float = 12.0
    cpu_seconds: int = 4
    memory_bytes: int = 1 << 30
    processes: int = 32
    file_bytes: int = 16 << 20
    output_bytes: int = 4 << 20


@dataclass(frozen=True)
class Outcome:
    """What became of a program. `ok`: it ended with exit status 0; `failed`: with another (128 and its number for a
    signal), as when it ran out of memory or processor time; `timeout` and `overflow`: it was stopped, after too long a
    time or too much output.
    """

    status: Status
    stdout: str
    stderr: str
    seconds: float
    exit_code: int | None = None


def run(program: str, stdin: str = "", limits: Limits | None = None) -> Outcome:
    """Run the text of a Python program. Raises `RefusedError` if it cannot be contained."""
    return _run(mode(), program, stdin, limits or Limits())


def mode() -> Mode:
    """How programs are contained here. Raises `RefusedError` if they cannot be."""
    wanted = os.environ.get(SWITCH, "bwrap")
    if wanted == "rlimit":
        return "rlimit"
    if wanted != "bwrap":
        raise RefusedError(f"{SWITCH} is '{wanted}': it may be bwrap or rlimit")
    if problem := _problem(shutil.which("bwrap")):
        raise RefusedError(
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
        outcome = _run("bwrap", "print(6 * 7)", "", Limits(seconds=30.0))
    except RefusedError as error:
        return str(error)
    return None if outcome.stdout == "42\n" else f"a trial of bwrap ended as {outcome}"


def _run(how: Mode, program: str, stdin: str, limits: Limits) -> Outcome:
    started = time.monotonic()
    ready, tell = os.pipe()
    with (
        os.fdopen(ready, "rb") as told,
        _sealed(program) as text,
        _sealed(stdin) as feed,
        tempfile.TemporaryDirectory(prefix="peftbench-", ignore_cleanup_errors=True) as folder,
    ):
        try:
            process = subprocess.Popen(
                [*(_box(limits) if how == "bwrap" else ()), *_python(limits, how, text.fileno(), tell)],
                stdin=feed,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT | {"HOME": TEMPORARY if how == "bwrap" else folder},
                cwd=folder,
                pass_fds=(text.fileno(), tell),
                start_new_session=True,
            )
        except OSError as error:
            raise RefusedError(f"the sandbox could not be started: {error}") from error
        finally:
            os.close(tell)
        status, out, err = _attend(process, limits)
        if not told.read(1):
            raise RefusedError(f"the sandbox did not start: {' '.join(err.split())[-300:] or status}")
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    ended: Status = "failed" if code else "ok"
    return Outcome(status or ended, out, err, time.monotonic() - started, None if status else code)


def _sealed(text: str) -> BinaryIO:
    """A file in memory which can be read and no longer written, by nobody.

    A pipe would have to be fed while output is read; a file on disk could be opened again for writing, through `/proc`.
    """
    file = os.fdopen(os.memfd_create("given", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    file.write(text.encode("utf-8", "replace"))
    file.seek(0)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return file


def _attend(process: subprocess.Popen[bytes], limits: Limits) -> tuple[Status | None, str, str]:
    """Read what a process prints until it ends (no status) or has to be stopped; then nothing of it is left."""
    deadline = time.monotonic() + limits.seconds
    printed: dict[int, bytes] = {stream.fileno(): b"" for stream in (process.stdout, process.stderr) if stream}
    status: Status | None = None
    with process, selectors.DefaultSelector() as selector:
        for stream in printed:
            selector.register(stream, selectors.EVENT_READ)
        try:
            while selector.get_map() and status is None:
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    piece = os.read(key.fd, 1 << 16)
                    printed[key.fd] += piece
                    if not piece:
                        selector.unregister(key.fd)
                if sum(map(len, printed.values())) > limits.output_bytes:
                    status = "overflow"
                elif time.monotonic() >= deadline:
                    status = "timeout"
            if status is None:
                process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = "timeout"
        finally:
            # A group of its own, before it is waited for and its number may be another's; a box ends with its keeper.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    out, err = (text.decode("utf-8", "replace") for text in printed.values())
    return status, out, err


def _python(limits: Limits, how: Mode, text: int, tell: int) -> list[str]:
    """The command of the Python that sets its own limits and then becomes the program."""
    bounds = {
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NPROC": limits.processes + (_tasks_of_user() if how == "rlimit" else 0),
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    given = (INSIDE.read_text(encoding="utf-8"), str(text), str(tell), json.dumps(bounds))
    return [str(python), "-P", "-s", "-S", "-X", "utf8", "-c", *given]


def _tasks_of_user() -> int:
    """Threads that this user runs already: outside a box the limit counts them too."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            count += len(list((process / "task").iterdir())) if process.stat().st_uid == os.getuid() else 0
    return count


def _box(limits: Limits) -> list[str]:
    """The command of a bubblewrap that shows the system's files and Python's, read-only, and a temporary folder."""
    alone = ["--unshare-all"]
    after: list[str] = []
    if _is_machine_root():
        # The limit on processes counts by user and does not bind root, so the program is run by a user of its own.
        user = secrets.randbelow(1 << 30) + (1 << 30)
        alone = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        alone += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        after = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    shown: list[str] = []
    for place in map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")):
        if place.is_symlink():
            shown += ["--symlink", str(place.readlink()), str(place)]
        elif place.exists():
            shown += ["--ro-bind", str(place), str(place)]
    python = Path(sys.base_prefix)
    if not python.is_relative_to("/usr"):
        for parent in (*reversed(python.parents[:-1]), python):
            shown += ["--perms", "0755", "--dir", str(parent)]
        for place in (python / "bin", python / "lib"):
            shown += ["--ro-bind", str(place), str(place)]
    shown += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    shown += ["--perms", "1777", "--size", str(limits.file_bytes), "--tmpfs", TEMPORARY, "--remount-ro", "/"]
    return [
        shutil.which("bwrap") or "bwrap",
        *alone,
        "--die-with-parent",
        "--new-session",
        *shown,
        "--chdir",
        TEMPORARY,
        "--",
        *after,
    ]


def _is_machine_root() -> bool:
    """Root of the machine itself, not of a container that calls another user so."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
