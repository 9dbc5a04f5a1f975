"""What is decided before any worker starts: how many there are, their precision, and the forecast of their costs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.core import device, machine_resources
from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.engine.precision import Precision, Shape, decided_precision, layer_shape
from peftbench.launch import Options
from peftbench.launch.worker_process import python_path
from peftbench.models import at, find
from peftbench.models.hub_commit import cached_config
from peftbench.models.saved_model_files import weight_bytes
from peftbench.profiling.devices import HERE, find_device

if TYPE_CHECKING:
    from peftbench.profiling.forecast import Forecast

FORECAST_PROCESSES = 4
"""Maximum number of processes that forecast costs."""

WORKER_BYTES = 1_500_000_000
"""Memory of a worker without its model: torch, transformers, rows, and a small run."""
COPIES = 4
"""Factor for the bytes of a model's files: weights, gradients, optimiser states, activations."""


def default_workers(specs: Iterable[RunSpec] = ()) -> int:
    """Return one worker per GPU; without a GPU, one per usable core, limited by memory."""
    if gpus := device.visible_gpus():
        return len(gpus)
    names = {spec.model.name for spec in specs}
    need = WORKER_BYTES + COPIES * max(map(_weights, names), default=0)
    return max(1, min(machine_resources.usable_cpus(), machine_resources.usable_memory() // need))


def _weights(name: str) -> int:
    """Return the bytes of a model's weight files; 0 if they are not on this machine."""
    try:
        directory: Path | None = find(name).directory
        return weight_bytes(directory) if directory else 0
    except (OSError, UserError):
        return 0


def forecast_runs(
    specs: Sequence[RunSpec],
    device: str,
    data: Path | None,
    workers: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> "Forecast":
    """Forecast the costs of runs on a device; with `workers` 0, by the default number of workers.

    `progress` is called with the numbers of completed forecasts and of all. Raises `UnknownNameError` for the device.
    """
    from peftbench.profiling.forecast import forecast

    on = find_device(device)
    count = workers or (default_workers(specs) if device == HERE else 1)
    processes = min(machine_resources.usable_cpus(), FORECAST_PROCESSES)
    return forecast(list(specs), on, data, count, progress=progress, processes=processes)


def chosen_precisions(specs: Sequence[RunSpec], options: Options) -> dict[str, Precision]:
    """Return the precision of each model whose runs have `precision = "auto"`, by name; `options` may fix some.

    A shape without a decision is measured in a separate process. Raises `UserError` if that fails.
    """
    chosen: dict[str, Precision] = dict(options.precisions)
    for name, version in {(spec.model.name, spec.model.version) for spec in specs if spec.train.precision == "auto"}:
        if name in chosen or (shape := _shape(name, version)) is None:
            continue
        known = None if device.visible_gpus() else decided_precision(shape, options.threads)
        chosen[name] = known or _measured(shape, options.threads)
    return chosen


def _shape(name: str, version: int | str) -> Shape | None:
    """Return the shape of a model's layers; none if its configuration cannot be read, which its runs will report."""
    try:
        model = at(name, version)
        if model.directory is not None:
            config = json.loads((model.directory / "config.json").read_bytes())
        else:
            config = cached_config(model.source, model.revision) or model.config or {}
        if shape := layer_shape(config):
            return shape
        # A file may leave out what its class has by default.
        from transformers import AutoConfig

        return layer_shape(AutoConfig.from_pretrained(model.source, revision=model.revision).to_dict())
    except (OSError, ValueError, UserError):
        return None


def _measured(shape: Shape, threads: int) -> Precision:
    command = [sys.executable, "-P", "-m", "peftbench.engine.precision", *map(str, (*shape, threads))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": python_path()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    found = done.stdout.strip()
    if done.returncode or found not in ("fp32", "bf16"):
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"the precision could not be measured: {reason}. Set precision in [train] to fp32 or bf16")
    return "bf16" if found == "bf16" else "fp32"
