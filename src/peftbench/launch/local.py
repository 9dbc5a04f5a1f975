"""The launcher for this machine: worker processes, each with a resident base model, get one spec at a time.

Several launchers, on one machine or on several with a shared file system, can work on one grid: each claims a run
before it starts it, and looks for results of the others.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from peftbench.core import device
from peftbench.core.machine_faults import died_of_environment
from peftbench.core.registry import UserError, error_line
from peftbench.core.spec import Choice, RunResult, RunSpec
from peftbench.launch import After, Event, InterruptedBySignal, Options, StoppedError, Watch
from peftbench.launch.capacity import chosen_precisions
from peftbench.launch.capacity import default_workers as default_workers
from peftbench.launch.pickle_user_code import UserUnits, user_units
from peftbench.launch.time_limits import LEAST, Forecasts, TimeLimit, time_text
from peftbench.launch.worker_messages import Job, Setup
from peftbench.launch.worker_process import WorkerProcess, cpu_seconds, start_worker, worker_environment
from peftbench.results.run_claims import Claims
from peftbench.results.store import Store, read_result

TRIES = 2
"""Number of attempts at a run whose method ends the worker, before it is recorded as failed."""
WAITS = (3.0, 20.0)
"""Seconds before each new attempt after a fault of the machine; after the last one the run is given up."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
TICK = 0.5
"""Seconds between two checks of time limits."""
LOOK_AGAIN = 1.0
"""Seconds between two checks of a run that another launcher has claimed."""

Key = tuple[str, ...]
"""Scope of a fault: all runs (the store), the runs of one model and task (the same files), or one run."""
EVERY: Key = ()


def launch(specs: Sequence[RunSpec], store: Store, options: Options, watch: Watch, after: After | None = None) -> None:
    """Execute all specs and the runs that `after` adds; each has a result in the store when this returns.

    If a method ends its worker, its run is tried again and then recorded as failed. A run that exceeds its time limit
    is recorded as `timeout`. Faults of the machine are not recorded as results: the runs are tried again, and
    `StoppedError` reports those that could not be done. `KeyboardInterrupt` (Ctrl-C; in the main thread also SIGTERM
    and SIGHUP) ends the workers, removes the files of unfinished runs, and is raised again.
    """
    ranks = os.environ.get("WORLD_SIZE", "")
    if ranks.isdigit() and int(ranks) > 1:
        raise UserError(
            f"WORLD_SIZE is {ranks}: under torchrun every process would run the whole grid. Run the command once, "
            "without torchrun; it starts one worker per GPU"
        )
    if not specs:
        return
    units = user_units(specs, options.plugins)
    options = replace(options, precisions=chosen_precisions(specs, options))
    pool = _Pool(deque(specs), store, options, units, (watch, after))
    with _stopped_by_signals():
        pool.run(options.workers or default_workers(specs))


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise `InterruptedBySignal` on SIGTERM and SIGHUP, unless they are handled or ignored already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise InterruptedBySignal(number)

    free = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in free:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)


def _keys(spec: RunSpec) -> tuple[Key, ...]:
    return EVERY, (spec.model.model_dump_json(), spec.task.model_dump_json()), (spec.id,)


@dataclass
class _Hand:
    """A worker process with its pipe, the facts of its machine, its current run, and the model it loaded last."""

    index: int
    process: WorkerProcess
    pipe: Connection
    known: dict[str, Any] = field(default_factory=dict)
    spec: RunSpec | None = None
    model: Choice | None = None
    limit: TimeLimit | None = None
    at: str = ""
    stopped: str = ""
    kill_at: float | None = None


class _Pool:
    def __init__(
        self,
        queue: deque[RunSpec],
        store: Store,
        options: Options,
        units: UserUnits,
        told: tuple[Watch, After | None],
    ) -> None:
        self.queue, self.options, self.units, (self.watch, self.after) = queue, options, units, told
        self.store = Store(store.root.resolve())
        self.claims = Claims(self.store.root, self.store.owner)
        self.forecasts = Forecasts(options.data)
        self.hands: dict[Connection, _Hand] = {}
        self.released: list[WorkerProcess] = []
        self.tries: dict[str, int] = {}
        self.faults: dict[Key, int] = {}
        self.pauses: dict[Key, float] = {}
        self.given_up: dict[str, str] = {}
        self.renewed = time.monotonic()

    def run(self, count: int) -> None:
        """Work with at most `count` workers until no run is left that can be done."""
        try:
            with contextlib.suppress(OSError):
                self.store.clean()
                self.claims.clean()
            self._staff(count)
            while self.queue or self._busy():
                for pipe in wait(list(self.hands), TICK):
                    assert isinstance(pipe, Connection)
                    self._listen(self.hands[pipe])
                self._look_at_the_clock()
                self._staff(count)
            self._release()
        finally:
            self._dismiss()
        if self.given_up:
            raise self._stopped()

    def _busy(self) -> list[_Hand]:
        return [hand for hand in self.hands.values() if hand.spec is not None]

    def _staff(self, count: int) -> None:
        """Assign waiting runs to idle workers, and to new workers up to `count`."""
        while self.queue:
            idle = [hand for hand in self.hands.values() if hand.spec is None]
            if not idle and len(self.hands) >= count:
                return
            spec = self._claimed(idle[0].model if idle else None)
            if spec is None:
                return
            try:
                hand = idle[0] if idle else self._hire()
            except OSError as error:
                self._lose(spec)
                self._fault(spec, EVERY, f"a worker process did not start: {error_line(error)}", -1)
                return
            self._feed(hand, spec, count)
        if self.after is None:
            self._release()

    def _claimed(self, model: Choice | None) -> RunSpec | None:
        """Claim the next run that can be done and take it off the queue; runs of `model` come first."""
        now, waiting = time.monotonic(), list(self.queue)
        first = (spec for spec in waiting if spec.model == model)
        for spec in chain(first, (spec for spec in waiting if spec.model != model)):
            if any(self.pauses.get(key, 0.0) > now for key in _keys(spec)):
                continue
            try:
                if self._taken(spec):
                    return spec
            except OSError as error:
                self.queue.remove(spec)
                self._fault(spec, EVERY, error_line(error), -1)
                return None
        return None

    def _taken(self, spec: RunSpec) -> bool:
        """Return True if a run is now claimed here. Runs that others have finished leave the queue."""
        if self._done_elsewhere(spec):
            return False
        if not self.claims.take(spec.id):
            self.pauses[spec.id,] = time.monotonic() + LOOK_AGAIN
            return False
        # It may have been finished, and its claim dropped, since the look before.
        if self._done_elsewhere(spec):
            self.claims.drop(spec.id)
            return False
        self.queue.remove(spec)
        return True

    def _done_elsewhere(self, spec: RunSpec) -> bool:
        there = self.store.stamps(spec) - self.options.replace.get(spec.id, frozenset())
        if not there:
            return False
        (path, *_), *_ = there
        try:
            result = read_result(Path(path))
        except (OSError, ValueError):
            return False
        self.queue.remove(spec)
        self.watch(Event("elsewhere", -1, spec, {"status": result.status}))
        self._go_on(result)
        return True

    def _release(self) -> None:
        """End the idle workers."""
        for hand in [hand for hand in self.hands.values() if hand.spec is None]:
            self._retire(hand)

    def _retire(self, hand: _Hand) -> None:
        del self.hands[hand.pipe]
        hand.pipe.close()
        self.released.append(hand.process)

    def _hire(self) -> _Hand:
        """Start a worker process."""
        taken = {hand.index for hand in self.hands.values()}
        index = next(number for number in range(len(taken) + 1) if number not in taken)
        ours, theirs = multiprocessing.Pipe()
        gpus = device.visible_gpus()
        with worker_environment(self.options.threads, gpus[index % len(gpus)] if gpus else None):
            process = start_worker(theirs)
        theirs.close()
        # An empty entry means the working directory of this process, which is not that of every method.
        path = tuple(part or str(Path.cwd()) for part in sys.path)
        hand = self.hands[ours] = _Hand(index, process, ours)
        with contextlib.suppress(OSError):
            ours.send(Setup(self.store.root, self.store.owner, self.options, self.units, path))
        return hand

    def _feed(self, hand: _Hand, spec: RunSpec, count: int) -> None:
        hand.spec, hand.model, hand.at = spec, spec.model, ""
        hand.limit = TimeLimit(spec, time.monotonic(), self.options.timeout, self.forecasts)
        beside = min(count, len(self._busy()) + len(self.queue))
        self.watch(Event("start", hand.index, spec))
        try:
            hand.pipe.send(Job(spec, max(beside, self.claims.beside())))
        except OSError:
            self._bury(hand)

    def _listen(self, hand: _Hand) -> None:
        try:
            kind, data = hand.pipe.recv()
        except (EOFError, OSError):
            self._bury(hand)
            return
        if kind == "refusal":
            raise UserError(data)
        if kind == "ready":
            hand.known = data
            if hand.limit is not None:
                hand.limit.begin(time.monotonic())
        elif kind == "step":
            self._progress(hand, data)
        else:
            self._ended(hand, kind, data)

    def _progress(self, hand: _Hand, data: dict[str, Any]) -> None:
        if hand.spec is None or hand.limit is None:
            return
        hand.limit.progress(time.monotonic())
        hand.at = f"step {data['step']} of {data['steps']}" if "step" in data else str(data.get("phase", ""))
        self.watch(Event("step", hand.index, hand.spec, data))

    def _ended(self, hand: _Hand, kind: str, data: dict[str, Any]) -> None:
        """Handle the end of a run, or a fault of the machine that prevented it."""
        spec, hand.spec, hand.limit = hand.spec, None, None
        assert spec is not None
        self.claims.drop(spec.id)
        # One that was told to end takes no other run, though it has finished this one in time.
        if data.pop("last") or hand.stopped:
            self._retire(hand)
        if kind == "fault":
            self._fault(spec, EVERY if data["store"] else _keys(spec)[1], data["reason"], hand.index)
            return
        result = data.pop("result")
        self._tell_done(hand, spec, result, data)

    def _tell_done(self, hand: _Hand, spec: RunSpec, result: RunResult, data: dict[str, Any]) -> None:
        for key in _keys(spec):
            self.faults.pop(key, None)
        self.watch(Event("done", hand.index, spec, data))
        self._go_on(result)

    def _go_on(self, result: RunResult) -> None:
        if self.after is not None:
            self.queue.extend(self.after(result))

    def _bury(self, hand: _Hand) -> None:
        """Handle a dead worker: its run is tried again, or recorded as failed unless the machine is at fault."""
        del self.hands[hand.pipe]
        hand.pipe.close()
        code = hand.process.wait(GRACE)
        if code is None:
            hand.process.stop(signal.SIGKILL)
            hand.process.wait(GRACE)
        spec, hand.spec = hand.spec, None
        if spec is None:
            return
        if hand.stopped:
            self._record(hand, spec, "timeout", hand.stopped)
        elif not hand.known:
            self._lose(spec)
            self._fault(spec, EVERY, f"a worker process did not start: {_exit(code)}", hand.index)
        elif code is not None and died_of_environment(code):
            self._lose(spec)
            self._fault(spec, (spec.id,), f"the worker process was ended from outside, {_exit(code)}", hand.index)
        else:
            self._died(hand, spec, code)

    def _died(self, hand: _Hand, spec: RunSpec, code: int | None) -> None:
        """Handle a method that ended its process."""
        self.tries[spec.id] = self.tries.get(spec.id, 0) + 1
        again = self.tries[spec.id] < TRIES
        self.watch(Event("died", hand.index, spec, {"exit_code": code, "again": again}))
        if again:
            self._lose(spec)
            self.queue.appendleft(spec)
            return
        how = f"died with {_exit(code)}" if code is not None else "closed its connection to the launcher"
        self._record(hand, spec, "failed", f"the worker process {how}, {TRIES} times")

    def _lose(self, spec: RunSpec) -> None:
        """Remove all files of a started run."""
        self.store.abandon(spec)
        self.claims.drop(spec.id)

    def _record(self, hand: _Hand, spec: RunSpec, status: Any, error: str) -> None:
        """Write the result of a run that could not write it itself."""
        result = RunResult(id=spec.id, spec=spec, status=status, error=error, **hand.known.get("record", {}))
        try:
            folder = self.store.begin(spec, keep=True)
            self.store.finish(folder, result, [], hand.known.get("machine_class"))
        except OSError as problem:
            self._lose(spec)
            self._fault(spec, EVERY, error_line(problem), hand.index)
            return
        self.claims.drop(spec.id)
        self._tell_done(hand, spec, result, {"status": status, "error": error})

    def _fault(self, spec: RunSpec, key: Key, reason: str, worker: int) -> None:
        """Handle a fault of the machine: try the run again later, or give up all runs in the scope of the fault."""
        now = time.monotonic()
        self.queue.append(spec)
        if self.pauses.get(key, 0.0) > now:
            # Of the runs that were under way when it began: the same fault.
            return
        self.faults[key] = count = self.faults.get(key, 0) + 1
        again = count <= len(WAITS)
        self.watch(Event("fault", worker, spec, {"reason": reason, "wait": WAITS[count - 1] if again else None}))
        if again:
            self.pauses[key] = now + WAITS[count - 1]
            return
        for one in [one for one in self.queue if key in _keys(one)]:
            self.queue.remove(one)
            self.given_up[one.id] = reason

    def _look_at_the_clock(self) -> None:
        """Renew the claims of current runs; end runs that exceed their time limit."""
        now = time.monotonic()
        if renew := now - self.renewed > self.claims.lease / 10:
            self.renewed = now
        for hand in self._busy():
            assert hand.spec is not None
            assert hand.limit is not None
            if renew:
                self.claims.renew(hand.spec.id)
                with contextlib.suppress(OSError):
                    os.utime(self.store.work(hand.spec))
            if hand.kill_at is not None:
                if now > hand.kill_at:
                    hand.process.stop(signal.SIGKILL)
            elif not hand.known:
                if now - hand.limit.since > LEAST:
                    hand.process.stop(signal.SIGKILL)
            elif why := hand.limit.passed(now, cpu_seconds(hand.process.pid)):
                where = f"; it was at {hand.at}" if hand.at else ""
                hand.stopped = f"stopped after {time_text(now - hand.limit.since)}, {why}{where}"
                hand.kill_at = now + GRACE
                hand.process.stop(signal.SIGTERM)

    def _stopped(self) -> StoppedError:
        reasons = list(dict.fromkeys(self.given_up.values()))
        more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
        return StoppedError(
            f"{len(self.given_up)} runs could not be done because of faults of this machine and are missing in store "
            f"{self.store.root}: {reasons[0]}{more}. Finished runs are kept. Fix the cause (disk space, memory, "
            "network), then repeat the command"
        )

    def _dismiss(self) -> None:
        """End all workers; remove unfinished runs from the store."""
        self.forecasts.close()
        hands = list(self.hands.values())
        for hand in hands:
            hand.process.stop(signal.SIGTERM)
        until = time.monotonic() + GRACE
        for process in [*(hand.process for hand in hands), *self.released]:
            if process.wait(max(0.0, until - time.monotonic())) is None:
                process.stop(signal.SIGKILL)
                process.wait(GRACE)
        for hand in hands:
            hand.pipe.close()
            if hand.spec is not None:
                self._lose(hand.spec)


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            memory = " (out of memory?)" if code == -signal.SIGKILL else ""
            return f"signal {signal.Signals(-code).name}{memory}"
    return f"exit code {code}"
