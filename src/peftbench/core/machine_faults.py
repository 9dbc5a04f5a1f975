"""Faults of the machine during a run. They are unrelated to the method, so no result is recorded for them."""

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
"""Libraries whose connection errors are not `ConnectionError`; a number after the name (`httpx2`) is ignored."""
LOST = {
    *"ConnectionError ConnectTimeout ReadTimeout Timeout TransportError ChunkedEncodingError".split(),
    *"ProtocolError MaxRetryError NewConnectionError ClientConnectionError".split(),
}
OVERLOADED = (408, 425, 429)
"""HTTP statuses below 500 for which a retry may succeed."""
OWN_SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP)
"""Signals caused by the process itself. Others come from outside, such as SIGKILL when memory runs out."""


class EnvironmentFaultError(UserError):
    """A run failed because of its machine: disk, network, system limits. It can be repeated."""


def environment_fault(problem: BaseException) -> str | None:
    """Return one line about the machine's fault if an error, or one of its causes, is such a fault, else `None`."""
    chain = list(_causes(problem))
    offline = _offline() or any(type(one).__name__ == "OfflineModeIsEnabled" for one in chain)
    for one in chain:
        if _of_disk(one) or (not offline and _of_network(one)):
            text = " ".join(str(one).split())[:300]
            return f"{type(one).__name__}: {text}"
    return None


def died_of_environment(exit_code: int) -> bool:
    """Return True if a process with this exit code (negative: a signal) was killed from outside."""
    return exit_code < 0 and -exit_code not in OWN_SIGNALS


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes."""
    seen: set[int] = set()
    one: BaseException | None = problem
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        # The context of an `OSError` counts as its cause: libraries raise a new error without `from`.
        context = one.__context__ if isinstance(one, OSError) and not one.__suppress_context__ else None
        one = one.__cause__ or context


def _of_disk(problem: BaseException) -> bool:
    if isinstance(problem, OSError) and problem.errno is not None:
        return problem.errno in DISK
    # Native writers (safetensors, torch, arrow) copy the system's message into errors of their own types.
    message = str(problem)
    return any(os.strerror(number) in message for number in DISK)


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
    """Return True if the user has set the Hub's client offline: then a missing file is not a network fault."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
