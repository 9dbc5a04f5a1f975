"""Claims: which process is doing which run, so that several launchers can share a store.

A claim is a file `<store>/.claims/<run id>` that names its owner. It is made by `link()` of a finished private file,
which is atomic on local disks and on NFS, and renewed by its time stamp. A watcher takes a claim over when the owner is
provably dead, or when the claim has not changed for `lease` seconds of the watcher's own monotonic clock, so clocks of
machines need not agree.
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
"""Seconds without a sign of life after which the claim of a process on another machine may be taken over."""
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""What file systems say that have no hard links."""


@dataclass(frozen=True)
class Owner:
    """A process. `boot` and `space` tell where its `pid` means anything: this start of the machine, this container."""

    token: str
    host: str
    boot: str
    space: str
    pid: int
    started: str

    @property
    def here(self) -> bool:
        """Whether its `pid` can be looked up here."""
        return bool(self.boot) and (self.boot, self.space) == (_boot(), _space())

    @property
    def dead(self) -> bool:
        """Whether it has provably ended; false where that cannot be known."""
        return self.here and _started(self.pid) != self.started


def myself() -> Owner:
    """This process, under a new token."""
    pid = os.getpid()
    return Owner(uuid.uuid4().hex[:12], socket.gethostname(), _boot(), _space(), pid, _started(pid))


def read_owner(path: Path) -> Owner | None:
    """The owner that a file names, if it does."""
    try:
        return Owner(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_owner(path: Path, owner: Owner) -> None:
    """Name the owner in a file."""
    path.write_text(json.dumps(asdict(owner)), encoding="utf-8")


class Claims:
    """The claims in a store, seen by one owner."""

    def __init__(self, root: Path, owner: Owner, lease: float = LEASE) -> None:
        self.folder, self.owner, self.lease = root / ".claims", owner, lease
        self._seen: dict[str, tuple[object, float]] = {}
        """By run: what a foreign claim looked like when it last changed, and when that was."""

    def take(self, id_: str) -> bool:
        """Claim a run; false if another process has it. Raises `OSError` where the store cannot be written."""
        path = self.folder / id_
        if self._make(path):
            return True
        held = _look(path)
        if held is None:
            return self._make(path)
        owner = read_owner(path)
        if owner is None or not owner.dead:
            now = time.monotonic()
            seen, since = self._seen.get(id_, (None, now))
            if seen != held:
                since = now
            self._seen[id_] = (held, since)
            if now - since < self.lease:
                return False
        return self._take_over(path, held)

    def renew(self, id_: str) -> bool:
        """Show that the run goes on; false if the claim is no longer ours."""
        path = self.folder / id_
        if read_owner(path) != self.owner:
            return False
        with contextlib.suppress(OSError):
            os.utime(path)
        return True

    def drop(self, id_: str) -> None:
        """Give a run back, if it is ours."""
        path = self.folder / id_
        if read_owner(path) == self.owner:
            with contextlib.suppress(OSError):
                path.unlink()

    def clean(self) -> None:
        """Remove the claims of processes that have provably died, and what else they left here."""
        for path in list(self.folder.glob("*")):
            owner = read_owner(path)
            if owner is None or not owner.dead:
                continue
            if path.name.startswith("."):
                path.unlink(missing_ok=True)
            elif self.take(path.name):
                self.drop(path.name)

    def beside(self) -> int:
        """How many runs are claimed by processes of this machine."""
        try:
            owners = [read_owner(path) for path in self.folder.iterdir() if not path.name.startswith(".")]
        except OSError:
            return 0
        return sum(owner is not None and owner.boot == self.owner.boot and not owner.dead for owner in owners)

    def _take_over(self, path: Path, held: object) -> bool:
        """Of several watchers, the one whose rename of the old claim succeeds may claim the run.

        Watchers take over one after the other, so that none renames the claim that another has just made. Where a file
        cannot be locked, that is found out afterwards, and for a moment a third might claim the run.
        """
        with self._alone():
            return _look(path) in (held, None) and self._replace(path, held)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                folder = os.open(self.folder, os.O_RDONLY)
                stack.callback(os.close, folder)
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield

    def _replace(self, path: Path, held: object) -> bool:
        grave = self.folder / f".{path.name}.{self.owner.token}"
        try:
            path.rename(grave)
        except FileNotFoundError:
            return self._make(path)
        self._seen.pop(path.name, None)
        if _look(grave) != held:
            # It was renewed in between: give it back, unless somebody has claimed the run meanwhile.
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
            # NFS may have made the link and lost the answer.
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
    """What changes when a claim is renewed or made anew; none if there is none."""
    try:
        # Opening asks an NFS server for what is true now.
        with path.open("rb") as claim:
            found = os.fstat(claim.fileno())
            return found.st_ino, found.st_mtime_ns, claim.read()
    except FileNotFoundError:
        return None


def _boot() -> str:
    """This start of this machine's kernel; empty where it cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _space() -> str:
    """The space in which process numbers are unique."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (what it points to is no path)
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty if there is none, or only what is left of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
