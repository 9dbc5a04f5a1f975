"""A worker process: takes specs from a pipe, does them with a resident base model, writes results, tells of them."""

import contextlib
import json
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from peftbench import machine
from peftbench.launch import Options
from peftbench.registry import load_plugin
from peftbench.spec import RunSpec
from peftbench.store import Store

TELL_EVERY = 0.2
"""Seconds between two messages about steps."""


class _StopError(BaseException):
    """Ends the worker from within a run, which must not take it for a failure of its own."""


def main(pipe: Connection, root: Path, options: Options) -> None:
    """Serve until the pipe ends: receive a spec, send ("step", data) as it goes, then ("done", data).

    Trouble with the store ends the worker with ("store", message): no other run could be written either. A GPU that
    cannot be used ends it with ("refusal", message): its runs would silently be those of a CPU.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    from peftbench.experiment import Worker

    if os.environ.get("CUDA_VISIBLE_DEVICES", "-1") not in ("", "-1") and not torch.cuda.is_available():
        refusal = "this machine has a GPU that torch cannot use: install a build of torch with CUDA, or set"
        pipe.send(("refusal", f"{refusal} CUDA_VISIBLE_DEVICES=-1 to use the CPU"))
        return
    torch.set_num_threads(options.threads)
    for plugin in options.plugins:
        load_plugin(plugin)
    # While it is what was imported: files may change before the last run is done.
    machine.code()
    worker, store = Worker(options.data, options.keep_adapters), Store(root)
    with contextlib.suppress(EOFError, BrokenPipeError, _StopError):
        while True:
            spec: RunSpec = pipe.recv()
            try:
                done = _one(spec, worker, store, pipe)
            except OSError as error:
                pipe.send(("store", f"{error.strerror or error}: {error.filename or root}"))
                return
            pipe.send(("done", done))
            if worker.broken:
                return


def _one(spec: RunSpec, worker: Any, store: Store, pipe: Connection) -> dict[str, Any]:
    from peftbench.experiment import run

    folder = store.begin(spec)
    told = 0.0
    with (folder / "trace.jsonl").open("w", encoding="utf-8") as trace:

        def report(event: dict[str, Any]) -> None:
            nonlocal told
            trace.write(json.dumps(event) + "\n")
            if time.monotonic() - told >= TELL_EVERY or "step" not in event:
                told = time.monotonic()
                try:
                    pipe.send(("step", event))
                except BrokenPipeError:
                    # Whoever started this is gone: leave no result that nobody waits for.
                    raise _StopError from None

        result, predictions = run(spec, worker, folder, report)
    store.finish(folder, result, predictions)
    main_score = next(iter(result.scores.values()), None)
    return {
        "status": result.status,
        "score": main_score.value if main_score else None,
        "validation_loss": result.validation_loss,
        "error": result.error,
        "seconds": result.costs.train_seconds,
    }


def quiet_start() -> None:
    """Settings a worker needs before torch is imported, inherited by its process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.warnoptions:
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
