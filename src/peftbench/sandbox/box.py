"""The command that starts a contained Python process, and its limits."""

import os
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from peftbench.sandbox.seccomp import filter_of

Mode = Literal["bwrap", "rlimit"]
INSIDE = Path(__file__).with_name("code_inside_sandbox.py")
TEMPORARY = "/tmp"  # noqa: S108 (the one inside the box)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}


class NotContainedError(Exception):
    """No program was run, because it could not be contained; the message gives the reason and a remedy."""


@dataclass(frozen=True)
class ResourceLimits:
    """Limits of a program.

    `seconds`: wall-clock time, without the time in which the program waited for a CPU. `cpu_seconds`: CPU time, of each
    process and of all together. `memory_bytes`: address space of each process. `resident_bytes`: resident memory of all
    processes together. `processes`: processes and threads. `file_bytes`: size of the temporary folder, and of each
    file. `files`: number of files in that folder. `output_bytes`: size of the output.
    """

    seconds: float = 12.0
    cpu_seconds: int = 4
    memory_bytes: int = 1 << 30
    processes: int = 32
    file_bytes: int = 16 << 20
    output_bytes: int = 4 << 20
    resident_bytes: int = 1 << 30
    files: int = 10_000


def command(how: Mode, limits: ResourceLimits) -> tuple[list[str], dict[str, Any]]:
    """Return the command that runs `code_inside_sandbox.py`, and the parameters by which it sets its limits."""
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    flags = ["-P", "-s", "-S", "-X", "utf8", "-c", INSIDE.read_text(encoding="utf-8")]
    bounds = {
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NPROC": limits.processes + (_tasks_of_user() if how == "rlimit" else 0),
        "RLIMIT_NOFILE": 256,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_CORE": 0,
    }
    box = _bubblewrap(limits) if how == "bwrap" else []
    return [*box, str(python), *flags], {"bounds": bounds, "filter": _filter(how).hex()}


def _filter(how: Mode) -> bytes:
    """Return the filter of system calls; empty in the weaker mode on a machine without a list of system calls."""
    try:
        return filter_of(os.uname().machine)
    except ValueError as error:
        if how == "bwrap":
            raise NotContainedError(str(error)) from error
        return b""


def _tasks_of_user() -> int:
    """Return the number of threads that this user runs, which the limit includes outside bubblewrap."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            count += len(list((process / "task").iterdir())) if process.stat().st_uid == os.getuid() else 0
    return count


def _bubblewrap(limits: ResourceLimits) -> list[str]:
    """Return the bubblewrap command with read-only files of the system and of Python, and a temporary folder."""
    program = shutil.which("bwrap") or "bwrap"
    alone = ["--unshare-all"]
    after: list[str] = []
    if is_machine_root():
        # The limit on processes is per user and does not apply to root, so the program is run by a separate user.
        user = secrets.randbelow(1 << 30) + (1 << 30)
        alone = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        alone += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        after = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    elif _knows(program, "--disable-userns"):
        alone += ["--unshare-user", "--disable-userns"]
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
    return [program, *alone, "--die-with-parent", "--new-session", *shown, "--chdir", TEMPORARY, "--", *after]


@lru_cache
def _knows(program: str, option: str) -> bool:
    """Return True if the installed bubblewrap has an option; older versions rely on the filter of system calls."""
    try:
        return (
            option
            in subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60, check=False).stdout
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def is_machine_root() -> bool:
    """Return True for root of the machine itself, False for root of a user namespace."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
