"""Claims: which process executes which run, so that several launchers can share a store.

A claim is a file `<store>/.claims/<run id>` that names its owner. It is created by `link()` of a complete private file,
which is atomic on local disks and on NFS, and renewed through its time stamp. A watcher takes a claim over when the
owner is known to be dead, or when the claim has not changed for `lease` seconds of the watcher's own monotonic clock,
so the clocks of machines need not agree.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

LEASE = 300.0
"""Seconds without renewal after which the claim of a process on another machine may be taken over."""
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""Errors of file systems without hard links."""


@dataclass(frozen=True)
class Owner:
    """A process. Its `pid` is valid within a boot of the machine (`boot`) and a PID namespace (`space`)."""

    token: str
    host: str
    boot: str
    space: str
    pid: int
    started: str

    @property
    def here(self) -> bool:
        """Whether its `pid` can be looked up in this namespace."""
        return bool(self.boot) and (self.boot, self.space) == (_boot(), _space())

    @property
    def dead(self) -> bool:
        """Whether it is known to have ended; False if that is unknown."""
        return self.here and _started(self.pid) != self.started


def myself() -> Owner:
    """Return this process as an owner with a new token."""
    pid = os.getpid()
    return Owner(uuid.uuid4().hex[:12], socket.gethostname(), _boot(), _space(), pid, _started(pid))


def read_owner(path: Path) -> Owner | None:
    """Return the owner in a file, `None` if the file contains none."""
    try:
        return Owner(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_owner(path: Path, owner: Owner) -> None:
    """Write the owner to a file."""
    path.write_text(json.dumps(asdict(owner)), encoding="utf-8")


class Claims:
    """The claims in a store, seen by one owner."""

    def __init__(self, root: Path, owner: Owner, lease: float = LEASE) -> None:
        self.folder, self.owner, self.lease = root / ".claims", owner, lease
        self._seen: dict[str, tuple[object, float]] = {}
        """Run id to the last observed state of another owner's claim, and the time of that change."""

    def take(self, id_: str) -> bool:
        """Claim a run; return False if another process has it. Raises `OSError` if the store cannot be written."""
        path = self.folder / id_
        if self._make(path):
            return True
        state = _look(path)
        if state is None:
            return self._make(path)
        owner = read_owner(path)
        if owner is None or not owner.dead:
            now = time.monotonic()
            seen, since = self._seen.get(id_, (None, now))
            if seen != state:
                since = now
            self._seen[id_] = (state, since)
            if now - since < self.lease:
                return False
        return self._take_over(path, state)

    def renew(self, id_: str) -> bool:
        """Renew a claim; return False if it no longer belongs to this owner."""
        path = self.folder / id_
        if read_owner(path) != self.owner:
            return False
        with contextlib.suppress(OSError):
            os.utime(path)
        return True

    def drop(self, id_: str) -> None:
        """Remove a claim if it belongs to this owner."""
        path = self.folder / id_
        if read_owner(path) == self.owner:
            with contextlib.suppress(OSError):
                path.unlink()

    def clean(self) -> None:
        """Remove the claims and temporary files of processes that are known to be dead."""
        for path in list(self.folder.glob("*")):
            owner = read_owner(path)
            if owner is None or not owner.dead:
                continue
            if path.name.startswith("."):
                path.unlink(missing_ok=True)
            elif self.take(path.name):
                self.drop(path.name)

    def beside(self) -> int:
        """Return the number of runs claimed by processes on this machine."""
        try:
            owners = [read_owner(path) for path in self.folder.iterdir() if not path.name.startswith(".")]
        except OSError:
            return 0
        return sum(owner is not None and owner.boot == self.owner.boot and not owner.dead for owner in owners)

    def _take_over(self, path: Path, state: object) -> bool:
        """Take over a claim last seen in `state`; return whether this succeeded.

        The watcher whose rename of the old claim succeeds may claim the run. A lock prevents that a watcher renames the
        claim that another has just created. If locks are not supported, such a rename is detected and undone, and in
        between a third process could claim the run.
        """
        with self._alone():
            return _look(path) in (state, None) and self._replace(path, state)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                folder = os.open(self.folder, os.O_RDONLY)
                stack.callback(os.close, folder)
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield

    def _replace(self, path: Path, state: object) -> bool:
        grave = self.folder / f".{path.name}.{self.owner.token}"
        try:
            path.rename(grave)
        except FileNotFoundError:
            return self._make(path)
        self._seen.pop(path.name, None)
        if _look(grave) != state:
            # It was renewed in between: restore it, unless another process has claimed the run.
            with contextlib.suppress(OSError):
                os.link(grave, path)
            grave.unlink(missing_ok=True)
            return False
        grave.unlink(missing_ok=True)
        return self._make(path)

    def _make(self, path: Path) -> bool:
        private = self.folder / f".new.{self.owner.token}"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            write_owner(private, self.owner)
            os.link(private, path)
            return True
        except FileExistsError:
            # NFS may have created the link and lost the reply.
            return private.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return self._make_exclusively(path)
        finally:
            private.unlink(missing_ok=True)

    def _make_exclusively(self, path: Path) -> bool:
        try:
            with path.open("x", encoding="utf-8") as out:
                json.dump(asdict(self.owner), out)
        except FileExistsError:
            return False
        return True


def _look(path: Path) -> object:
    """Return the state of a claim, which changes when it is renewed or recreated; `None` without a claim."""
    try:
        # Opening the file makes an NFS client fetch its current state.
        with path.open("rb") as claim:
            status = os.fstat(claim.fileno())
            return status.st_ino, status.st_mtime_ns, claim.read()
    except FileNotFoundError:
        return None


def _boot() -> str:
    """Return the boot id of the kernel; empty if it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _space() -> str:
    """Return the PID namespace of this process; empty if it is unknown."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (the target is not a path)
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the start time of a process in ticks since boot; empty if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
