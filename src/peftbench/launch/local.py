"""Runs on this machine: worker processes, each with a resident base model, fed one spec at a time."""

import multiprocessing
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from peftbench.launch import Event, Options, Watch
from peftbench.launch.worker import main, quiet_start
from peftbench.registry import UserError
from peftbench.spec import RunResult, RunSpec
from peftbench.store import Store

TRIES = 2
"""How often a run whose worker died is begun before it is recorded as failed."""


def launch(specs: Sequence[RunSpec], store: Store, options: Options, watch: Watch) -> None:
    """Do all specs; each has a result in the store when this returns.

    A worker that dies costs one run, which is tried again and then recorded as failed. `KeyboardInterrupt` ends the
    workers, removes what the unfinished runs left, and goes on to the caller. Raises `UserError` when the store cannot
    be written any more.
    """
    if not specs:
        return
    count = min(options.workers or default_workers(), len(specs))
    _Pool(deque(specs), store, options, watch).run(count)


def default_workers() -> int:
    """One a GPU, or one a core: small models gain nothing from several threads (docs/design.md)."""
    return _gpus() or os.cpu_count() or 1


def _gpus() -> int:
    """Visible GPUs, asked of the driver so that torch is not imported here."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return len([part for part in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if part.strip() not in ("", "-1")])
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return 0
    try:
        listed = subprocess.run([driver, "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return listed.stdout.count("GPU ")


@dataclass
class _Hand:
    """A worker process, its end of the pipe, and what it is doing."""

    index: int
    process: BaseProcess
    pipe: Connection
    spec: RunSpec | None = None


class _Pool:
    def __init__(self, queue: deque[RunSpec], store: Store, options: Options, watch: Watch) -> None:
        self.queue, self.store, self.options, self.watch = queue, store, options, watch
        self.tries: dict[str, int] = {}
        self.hands: dict[Connection, _Hand] = {}

    def run(self, count: int) -> None:
        try:
            for index in range(count):
                self._hire(index)
            while self.hands:
                for pipe in wait(list(self.hands)):
                    assert isinstance(pipe, Connection)
                    self._listen(self.hands[pipe])
        finally:
            self._dismiss()

    def _hire(self, index: int) -> None:
        """Start a worker process and give it its first run."""
        ours, theirs = multiprocessing.Pipe()
        asked = (theirs, self.store.root, self.options)
        with _environment(self.options.threads, index % gpus if (gpus := _gpus()) else None):
            process = multiprocessing.get_context("spawn").Process(target=main, args=asked, daemon=True)
            process.start()
        theirs.close()
        hand = _Hand(index, process, ours)
        self.hands[ours] = hand
        self._feed(hand)

    def _feed(self, hand: _Hand) -> None:
        """The next run, or the end of a worker's work."""
        hand.spec = self.queue.popleft() if self.queue else None
        if hand.spec is None:
            del self.hands[hand.pipe]
            hand.pipe.close()
            return
        self.tries[hand.spec.id] = self.tries.get(hand.spec.id, 0) + 1
        self.watch(Event("start", hand.index, hand.spec))
        try:
            hand.pipe.send(hand.spec)
        except OSError:
            self._bury(hand, hand.spec)

    def _listen(self, hand: _Hand) -> None:
        spec = hand.spec
        assert spec is not None
        try:
            kind, data = hand.pipe.recv()
        except (EOFError, ConnectionError):
            self._bury(hand, spec)
            return
        if kind == "store":
            raise self._store_trouble(data)
        if kind == "refusal":
            raise UserError(data)
        self.watch(Event(kind, hand.index, spec, data))
        if kind == "done":
            self._feed(hand)

    def _bury(self, hand: _Hand, spec: RunSpec) -> None:
        """A worker died: its run goes back to the queue, or is recorded as failed."""
        del self.hands[hand.pipe]
        hand.process.join()
        code = hand.process.exitcode
        again = self.tries[spec.id] < TRIES
        self.watch(Event("died", hand.index, spec, {"exit_code": code, "again": again}))
        if again:
            self.queue.appendleft(spec)
        else:
            how = f"the worker process died with exit code {code}, {TRIES} times" + (
                " (killed: out of memory?)" if code == -9 else ""
            )
            failed = RunResult(id=spec.id, spec=spec, status="failed", error=how)
            try:
                self.store.finish(self.store.begin(spec), failed, [])
            except OSError as error:
                raise self._store_trouble(str(error)) from error
            self.watch(Event("done", hand.index, spec, {"status": "failed", "error": how}))
        if self.queue:
            self._hire(hand.index)

    def _store_trouble(self, what: str) -> UserError:
        return UserError(
            f"store {self.store.root}: {what}. Nothing finished is lost: make room, then run the same command again"
        )

    def _dismiss(self) -> None:
        """End every worker; leave nothing unfinished in the store."""
        for hand in self.hands.values():
            hand.process.terminate()
        for hand in self.hands.values():
            hand.process.join()
            if hand.spec is not None:
                self.store.abandon(hand.spec)


@contextmanager
def _environment(threads: int, gpu: int | None) -> Iterator[None]:
    """The environment of a worker that is about to start."""
    before = dict(os.environ)
    quiet_start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if gpu is not None:
        visible = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[gpu] if visible else str(gpu)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
