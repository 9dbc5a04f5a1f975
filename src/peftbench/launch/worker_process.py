"""Starting and ending of worker processes. No worker outlives its launcher.

A worker is `python -m peftbench.launch.worker`, which inherits one end of a pipe. It does not import the script that
launched it, so no `if __name__ == "__main__"` and no file are needed.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

PACKAGE = Path(__file__).parents[2]
PR_SET_PDEATHSIG = 1


class WorkerProcess(Protocol):
    """A worker process as the launcher handles it."""

    @property
    def pid(self) -> int:
        """Its number."""

    def wait(self, seconds: float) -> int | None:
        """Return its exit code (negative: a signal), or none if it has not ended after `seconds`."""

    def stop(self, number: int) -> None:
        """Send signal `number` to it and to all processes that it started."""


class _Started:
    """A process at the head of a group of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, seconds: float) -> int | None:
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.stop(signal.SIGKILL)
        return code

    def stop(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def python_path() -> str:
    """Return PYTHONPATH for a process that imports this package, wherever it is imported from here."""
    return os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])


def start_worker(theirs: Connection) -> WorkerProcess:
    """Start a worker with this end of a pipe and the current environment."""
    number = theirs.fileno()
    process = subprocess.Popen(
        # -P: a file beside the user's script must not pass for a module of ours.
        [sys.executable, "-P", "-m", "peftbench.launch.worker", str(number), str(os.getpid())],
        pass_fds=[number],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": python_path()},
        process_group=0,
    )
    return _Started(process)


@contextmanager
def worker_environment(threads: int, gpu: str | None) -> Iterator[None]:
    """Set the environment for a worker to start: variables that libraries read on import.

    `gpu`: the GPU of the worker, as an entry of CUDA_VISIBLE_DEVICES.
    """
    before = dict(os.environ)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.warnoptions:
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends. Linux only."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It went before the call.
        os._exit(1)


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time of a process and its ended children; none if the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
