"""Runs on this machine: worker processes, each with a resident base model, fed one spec at a time."""

import multiprocessing
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from peftbench.launch import Event, Options, Watch
from peftbench.launch.worker import main, quiet_start
from peftbench.registry import UserError
from peftbench.spec import Choice, RunResult, RunSpec
from peftbench.store import Store

WORKERS = multiprocessing.get_context("spawn")
"""How their processes are started: each from nothing, as a GPU that was used cannot be forked."""
TRIES = 2
"""How often a run whose worker died is begun before it is recorded as failed."""

After = Callable[[RunResult], Sequence[RunSpec]]
"""Asked when a run is done: what is to be done now that its result is known."""


def launch(specs: Sequence[RunSpec], store: Store, options: Options, watch: Watch, after: After | None = None) -> None:
    """Do all specs, and those that results bring about; each has a result in the store when this returns.

    A worker that dies costs one run, which is tried again and then recorded as failed. `KeyboardInterrupt` ends the
    workers, removes what the unfinished runs left, and goes on to the caller. Raises `UserError` when the store cannot
    be written any more.
    """
    if not specs:
        return
    _Pool(deque(specs), store, options, (watch, after)).run(options.workers or default_workers())


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
    """A worker process, its end of the pipe, what it is doing, and the model it has loaded last."""

    index: int
    process: BaseProcess
    pipe: Connection
    spec: RunSpec | None = None
    model: Choice | None = None


class _Pool:
    def __init__(self, queue: deque[RunSpec], store: Store, options: Options, told: tuple[Watch, After | None]) -> None:
        self.queue, self.store, self.options, (self.watch, self.after) = queue, store, options, told
        self.tries: dict[str, int] = {}
        self.hands: dict[Connection, _Hand] = {}

    def run(self, count: int) -> None:
        """Work with at most so many workers; one that finds nothing to do waits if a run that ends may bring more."""
        try:
            self._staff(count)
            while any(hand.spec for hand in self.hands.values()):
                for pipe in wait(list(self.hands)):
                    assert isinstance(pipe, Connection)
                    self._listen(self.hands[pipe])
                self._staff(count)
            self._release()
        finally:
            self._dismiss()

    def _staff(self, count: int) -> None:
        """Give what waits to those that wait, and to new ones while there may be more."""
        while self.queue:
            idle = [hand for hand in self.hands.values() if hand.spec is None]
            if not idle and len(self.hands) >= count:
                return
            self._feed(idle[0] if idle else self._hire())
        if self.after is None:
            self._release()

    def _release(self) -> None:
        """The end of the work of those that wait."""
        for hand in [hand for hand in self.hands.values() if hand.spec is None]:
            del self.hands[hand.pipe]
            hand.pipe.close()

    def _hire(self) -> _Hand:
        """Start a worker process."""
        taken = {hand.index for hand in self.hands.values()}
        index = next(number for number in range(len(taken) + 1) if number not in taken)
        ours, theirs = multiprocessing.Pipe()
        asked = (theirs, self.store.root, self.options)
        with _environment(self.options.threads, index % gpus if (gpus := _gpus()) else None):
            process = WORKERS.Process(target=main, args=asked, daemon=True)
            process.start()
        theirs.close()
        hand = self.hands[ours] = _Hand(index, process, ours)
        return hand

    def _feed(self, hand: _Hand) -> None:
        """The next run: of the model that the worker has, if there is one."""
        spec = next((spec for spec in self.queue if spec.model == hand.model), self.queue[0])
        self.queue.remove(spec)
        hand.spec, hand.model = spec, spec.model
        self.tries[spec.id] = self.tries.get(spec.id, 0) + 1
        self.watch(Event("start", hand.index, spec))
        try:
            hand.pipe.send(spec)
        except OSError:
            self._bury(hand)

    def _listen(self, hand: _Hand) -> None:
        try:
            kind, data = hand.pipe.recv()
        except (EOFError, ConnectionError):
            self._bury(hand)
            return
        if kind == "store":
            raise self._store_trouble(data)
        if kind == "refusal":
            raise UserError(data)
        spec = hand.spec
        assert spec is not None
        self.watch(Event(kind, hand.index, spec, data))
        if kind == "done":
            hand.spec = None
            if self.after is not None:
                self.queue.extend(self.after(self.store.latest(spec)))

    def _bury(self, hand: _Hand) -> None:
        """A worker died: its run, if it had one, goes back to the queue, or is recorded as failed."""
        del self.hands[hand.pipe]
        hand.process.join()
        spec = hand.spec
        if spec is None:
            return
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
            self.queue.extend(self.after(failed) if self.after else ())

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
