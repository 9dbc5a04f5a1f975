"""A worker process: gets specs from a pipe, runs them with a resident base model, writes and reports results."""

import contextlib
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from peftbench.core import device, provenance
from peftbench.core.machine_faults import EnvironmentFaultError
from peftbench.core.registry import UserError, error_line
from peftbench.core.spec import RunResult
from peftbench.launch.worker_messages import Job, Setup
from peftbench.launch.worker_process import die_with
from peftbench.results.store import Store

TELL_EVERY = 0.2
"""Minimum seconds between two messages about steps."""
OUTPUT_BYTES = 65536
"""Maximum size of the kept output of a run, from its beginning."""


def main(pipe: Connection, parent: int) -> None:
    """Serve the launcher `parent` until the pipe ends, and end the process.

    Receives a `Setup`, then `Job`s. Sends ("ready", facts of the machine), then for each run ("step", data) and
    ("done", data), or ("fault", data) after a fault of the machine. After ("refusal", message) it ends, because no
    run is possible here.
    """
    try:
        _serve(pipe, parent)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Without the end of an interpreter, which a run may have left in no state for it.
    os._exit(0)


def _serve(pipe: Connection, parent: int) -> None:
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, messages), daemon=True).start()
    setup: Setup = messages.get()
    sys.path[:] = setup.path
    try:
        worker = _prepared(setup)
    except UserError as refusal:
        pipe.send(("refusal", str(refusal)))
        return
    store = Store(setup.root, setup.owner)
    pipe.send(("ready", {"machine_class": provenance.machine_class(), "record": provenance.provenance_record()}))
    while not worker.broken:
        pipe.send(_one(messages.get(), worker, store, pipe))


def _receive(pipe: Connection, messages: "queue.SimpleQueue[Any]") -> None:
    """Pass on messages; end the process at once when the launcher is gone or closes the pipe."""
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        messages.put(message)


def _prepared(setup: Setup) -> Any:
    """Return the resident worker of this process. Raises `UserError` if no run is possible here."""
    import torch

    from peftbench.single_run import Worker

    if device.visible_gpus() and not device.has_gpu():
        refusal = "this machine has a GPU that torch cannot use: install a build of torch with CUDA, or set"
        raise UserError(f"{refusal} CUDA_VISIBLE_DEVICES=-1 to use the CPU")
    torch.set_num_threads(setup.options.threads)
    setup.units.load()
    # While it is what was imported: files may change before the last run is done.
    provenance.code()
    return Worker(setup.options.data, setup.options.keep_adapters, setup.options.precisions)


def _one(job: Job, worker: Any, store: Store, pipe: Connection) -> tuple[str, dict[str, Any]]:
    """Execute a run and publish its result. Return the message about it; `last`: this process takes no other run."""
    try:
        result = _done(job, worker, store, pipe)
    except (EnvironmentFaultError, OSError) as problem:
        store.abandon(job.spec)
        reason = str(problem) if isinstance(problem, EnvironmentFaultError) else error_line(problem)
        # Whatever goes wrong outside the run itself is of the store.
        of_store = not isinstance(problem, EnvironmentFaultError) or _in_store(problem, store.root)
        return "fault", {"reason": reason, "store": of_store, "last": worker.broken}
    main_score = next(iter(result.scores.values()), None)
    return "done", {
        "status": result.status,
        "score": main_score.value if main_score else None,
        "validation_loss": result.validation_loss,
        "error": result.error,
        "seconds": result.costs.train_seconds,
        "result": result,
        "last": worker.broken,
    }


def _done(job: Job, worker: Any, store: Store, pipe: Connection) -> RunResult:
    from peftbench.single_run import run

    spec, folder = job.spec, store.begin(job.spec)
    predictions: list[dict[str, Any]] = []
    with (folder / "trace.jsonl").open("w", encoding="utf-8") as trace, _output(folder / "output.txt"):
        try:
            result, predictions = run(spec, worker, folder, _Report(trace, pipe))
        except (EnvironmentFaultError, OSError):
            raise
        except BaseException as problem:
            # An exit or an interrupt that the method raised: the state of this process is not known.
            worker.broken = True
            error = f"the run ended its process: {error_line(problem)}"
            result = RunResult(id=spec.id, spec=spec, status="failed", error=error, **provenance.provenance_record())
    result = result.model_copy(update={"settings": result.settings | {"workers": job.workers}})
    store.finish(folder, result, predictions)
    return result


class _Report:
    """Receives progress of a run: writes all of it to the trace, and sends part of it to the launcher."""

    def __init__(self, trace: Any, pipe: Connection) -> None:
        self.trace, self.pipe, self.told = trace, pipe, 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        try:
            self.trace.write(json.dumps(event) + "\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.trace.name) from error
        if time.monotonic() - self.told >= TELL_EVERY or "step" not in event:
            self.told = time.monotonic()
            try:
                self.pipe.send(("step", event))
            except BrokenPipeError:
                # Whoever started this is gone: leave no result that nobody waits for.
                os._exit(1)


@contextmanager
def _output(path: Path) -> Iterator[None]:
    """Redirect the output of the process to a file, which is removed if it stays empty."""
    kept = os.dup(1), os.dup(2)
    with path.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number, place in enumerate(kept, start=1):
            with contextlib.suppress(OSError):
                os.dup2(place, number)
                os.close(place)
        size = path.stat().st_size
        if size == 0:
            path.unlink()
        elif size > OUTPUT_BYTES:
            os.truncate(path, OUTPUT_BYTES)


def _in_store(problem: BaseException | None, root: Path) -> bool:
    """Return True if a fault concerns the store, and so every run."""
    while problem is not None:
        name = getattr(problem, "filename", None)
        if isinstance(name, str | os.PathLike) and Path(name).is_relative_to(root):
            return True
        problem = problem.__cause__
    return False


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
