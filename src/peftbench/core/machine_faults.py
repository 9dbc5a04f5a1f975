"""Faults of the machine a run was done on. They say nothing about the method, so no result is recorded for them."""

import errno
import os
import signal
from collections.abc import Iterator

from peftbench.core.registry import UserError

DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.ENFILE,
    errno.EMFILE,
    errno.ESTALE,
    errno.ENODEV,
    errno.ENXIO,
)
NETWORK = (
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENETRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ETIMEDOUT,
)
CLIENTS = ("requests", "urllib3", "httpx", "httpcore", "aiohttp")
"""Libraries whose errors of a connection are no `ConnectionError`; a number after their names (`httpx2`) is cut."""
LOST = {
    *"ConnectionError ConnectTimeout ReadTimeout Timeout TransportError ChunkedEncodingError".split(),
    *"ProtocolError MaxRetryError NewConnectionError ClientConnectionError".split(),
}
OVERLOADED = (408, 425, 429)
"""Answers of a server, beside those from 500, that may differ when it is asked again."""
OWN_SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP)
"""Signals that a process brings upon itself. Others are sent to it, as the kernel's SIGKILL where memory runs out."""


class EnvironmentFaultError(UserError):
    """A run could not be done because of its machine: disk, network, limits of the system. It may be tried again."""


def environment_fault(problem: BaseException) -> str | None:
    """What was wrong with the machine, in a line, if an error or one that caused it is a fault of the environment."""
    chain = list(_causes(problem))
    offline = _offline() or any(type(one).__name__ == "OfflineModeIsEnabled" for one in chain)
    for one in chain:
        if _of_disk(one) or (not offline and _of_network(one)):
            text = " ".join(str(one).split())[:300]
            return f"{type(one).__name__}: {text}"
    return None


def died_of_environment(exit_code: int) -> bool:
    """Whether a process with this exit code (negative: a signal) was ended from outside."""
    return exit_code < 0 and -exit_code not in OWN_SIGNALS


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """The error and those that brought it about."""
    seen: set[int] = set()
    one: BaseException | None = problem
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        # What was being handled is the cause of an `OSError` too: libraries say so by a new one, without `from`.
        context = one.__context__ if isinstance(one, OSError) and not one.__suppress_context__ else None
        one = one.__cause__ or context


def _of_disk(problem: BaseException) -> bool:
    if isinstance(problem, OSError) and problem.errno is not None:
        return problem.errno in DISK
    # Native writers (safetensors, torch, arrow) put the system's words into errors of their own types.
    said = str(problem)
    return any(os.strerror(number) in said for number in DISK)


def _of_network(problem: BaseException) -> bool:
    kind = type(problem)
    if isinstance(problem, ConnectionError | TimeoutError):
        return True
    if isinstance(problem, OSError) and (problem.errno in NETWORK or kind.__name__ == "gaierror"):
        return True
    if kind.__name__ == "LocalEntryNotFoundError":
        return True
    status = getattr(getattr(problem, "response", None), "status_code", None)
    if isinstance(status, int):
        return status >= 500 or status in OVERLOADED
    names = {
        base.__name__ for base in kind.__mro__ if base.__module__.partition(".")[0].rstrip("0123456789") in CLIENTS
    }
    return bool(names & LOST)


def _offline() -> bool:
    """Whether the user has told the Hub's client to do without a network: then nothing was lost."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
