"""Forecast of the costs of a grid without downloads: parameters, FLOPs, memory, adapter size, time, energy."""

import heapq
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from peftbench.core.registry import UserError, error_line
from peftbench.core.spec import Choice, RunSpec
from peftbench.engine.families import model_family
from peftbench.engine.peak_memory import Memory
from peftbench.engine.tokenization import Encoded
from peftbench.engine.train import total_steps, validate_every
from peftbench.methods import given
from peftbench.profiling.cost_by_length import Profile, profile
from peftbench.profiling.devices import Device
from peftbench.profiling.dry_run import BatchShape, Counts
from peftbench.profiling.parameters_and_flops import CostEstimate, configuration, estimate_costs
from peftbench.profiling.row_lengths import RowLengths, row_lengths

ForecastStatus = Literal["fits", "does not fit", "refused", "not known"]
UNTOUCHED = Choice(name="none")
ForecastProgress = Callable[[int, int], None]
"""Progress callback: number of finished profiles, number of all profiles."""


@dataclass(frozen=True)
class CellForecast:
    """A cell of a grid and the costs of each of its runs (one per seed); `None`: unknown, or not applicable.

    `seconds`: training, validation and test; `train_seconds`: training steps only. `joules`: upper bound, the device's
    maximum power times `seconds`. `known_lengths`: row lengths are from the model's tokenizer, not estimated.
    """

    model: str
    method: str
    task: str
    size: str
    seeds: int
    status: ForecastStatus
    why: str = ""
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    forward_flops_512: int | None = None
    extra_forward_flops_512: int | None = None
    train_flops: int | None = None
    peak_memory_bytes: int | None = None
    peak_weights_bytes: int | None = None
    peak_gradients_bytes: int | None = None
    peak_optimizer_states_bytes: int | None = None
    peak_activations_bytes: int | None = None
    adapter_bytes: int | None = None
    train_seconds: float | None = None
    seconds: float | None = None
    joules: float | None = None
    known_lengths: bool = False
    test_rows: int | None = None


@dataclass(frozen=True)
class Forecast:
    """All cells of a grid on a device with a number of parallel workers."""

    device: Device
    workers: int
    cells: tuple[CellForecast, ...]

    def total(self, cost: str) -> float | None:
        """Return the sum of a cost over all runnable runs; `None` if it is unknown for one of them."""
        values = [(getattr(cell, cost), cell.seeds) for cell in self.runnable]
        return None if any(value is None for value, _ in values) else float(sum(v * n for v, n in values))

    @property
    def runnable(self) -> list[CellForecast]:
        """The cells that are neither refused nor too large for the memory."""
        return [cell for cell in self.cells if cell.status in ("fits", "not known")]

    @property
    def makespan(self) -> float | None:
        """Seconds until the last run ends if each free worker starts the next run; `None` if a time is unknown."""
        loads = [0.0] * self.workers
        for cell in self.runnable:
            if cell.seconds is None:
                return None
            for _ in range(cell.seeds):
                heapq.heappush(loads, heapq.heappop(loads) + cell.seconds)
        return max(loads)

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain values, with totals."""
        return {
            "device": asdict(self.device),
            "workers": self.workers,
            "totals": {
                "runs": sum(cell.seeds for cell in self.runnable),
                **{name: self.total(name) for name in ("train_flops", "adapter_bytes", "seconds", "joules")},
                "makespan_seconds": self.makespan,
            },
            "cells": [asdict(cell) for cell in self.cells],
        }


def forecast(
    specs: Sequence[RunSpec],
    on: Device,
    data: Path | None = None,
    workers: int = 1,
    *,
    progress: ForecastProgress = lambda *_: None,
    processes: int = 1,
) -> Forecast:
    """Return the costs of runs on a device with `workers` parallel runs. Needs no weights and no network.

    On a CPU the workers share the memory. With `processes` above 1, processes are forked on Linux; this is unsafe if
    torch has already computed with several threads in the calling process.
    """
    cells: dict[str, list[RunSpec]] = {}
    for spec in specs:
        cells.setdefault(spec.model_copy(update={"seed": 0, "trial": None}).id, []).append(spec)
    # Row lengths do not depend on the method.
    by_rows = {
        id_: runs[0].model_copy(update={"method": UNTOUCHED, "seed": 0, "trial": None}) for id_, runs in cells.items()
    }
    read = {spec.id: _tried(partial(row_lengths, spec, data)) for spec in {s.id: s for s in by_rows.values()}.values()}
    lengths = {id_: read[spec.id] for id_, spec in by_rows.items()}
    groups: dict[str, list[str]] = {}
    for id_, runs in cells.items():
        groups.setdefault(_group(runs[0]), []).append(id_)
    asked = []
    for ids in groups.values():
        shapes = [longest(cells[i][0], lengths[i]) for i in ids if isinstance(lengths[i], RowLengths)]
        asked.append((cells[ids[0]][0], tuple(dict.fromkeys(shapes)), on.bf16))
    found = dict(zip(groups, _profiles(asked, progress, processes), strict=True))
    room = on.memory_bytes // (1 if on.queued else max(1, workers))
    configs = cache(configuration)
    judged = [_cell(runs, found[_group(runs[0])], lengths[id_], (on, room), configs) for id_, runs in cells.items()]
    return Forecast(on, workers, tuple(judged))


def _group(spec: RunSpec) -> str:
    """Return the key of runs that share a profile: model, method and training settings."""
    return f"{spec.model} {spec.method.model_dump_json()} {spec.train.model_dump_json()}"


def longest(spec: RunSpec, known: RowLengths) -> BatchShape:
    """Return the shape of the micro-batch with the longest rows, padded to the longest."""
    chosen = sorted(known.train, key=sum)[-spec.train.per_device_train_batch_size :]
    target = round(sum(shape[1] for shape in chosen) / len(chosen))
    return max(map(sum, chosen)) - target, target


def _profiles(asked: Sequence[Any], progress: ForecastProgress, processes: int) -> list[Any]:
    """Return the results of `_profile`; several processes are used on Linux for at least four profiles."""
    count = min(len(asked), processes)
    found: list[Any] = []
    if count < 2 or len(asked) < 4 or sys.platform != "linux":
        for each in asked:
            found.append(_profile(each))
            progress(len(found), len(asked))
        return found
    with ProcessPoolExecutor(count, multiprocessing.get_context("fork")) as pool:
        for each in pool.map(_profile, asked):
            found.append(each)
            progress(len(found), len(asked))
    return found


def _profile(asked: tuple[RunSpec, tuple[BatchShape, ...], bool | None]) -> Any:
    """Return a profile; else the cell's status, the reason, and an estimate of its costs if there is one."""
    found = _tried(partial(profile, *asked))
    if isinstance(found, Profile) or found[0] == "refused":
        return found
    spec = asked[0]
    counted = _tried(lambda: estimate_costs(configuration(spec.model.name), spec.method.name, **given(spec.method)))
    # Methods that read weights are only refused when they are applied to real weights.
    return (*found, counted) if isinstance(counted, CostEstimate) else counted if counted[0] == "refused" else found


def _tried(make: Callable[[], Any]) -> Any:
    """Return the result of `make`, or the cell's status and the reason why it failed."""
    try:
        return make()
    except UserError as error:
        return "refused", str(error)
    except Exception as error:
        # Some methods need real weights; they can still be run.
        return "not known", error_line(error)


def _cell(
    runs: Sequence[RunSpec], found: Any, known: Any, on: tuple[Device, int], configs: Callable[[str], Any]
) -> CellForecast:
    spec = runs[0]
    cell = CellForecast(spec.model_name, str(spec.method), str(spec.task), str(spec.size), len(runs), "fits")
    if not isinstance(found, Profile):
        return replace(cell, status=found[0], why=found[1], **_known(found[2:]))
    cell = replace(
        cell,
        trainable_parameters=found.trainable_parameters,
        total_parameters=found.total_parameters,
        forward_flops_512=found.forward.flops,
        extra_forward_flops_512=found.extra_forward_flops_512,
        adapter_bytes=found.adapter_bytes,
    )
    if not isinstance(known, RowLengths):
        return replace(cell, status="not known", why=known[1])
    cell = replace(cell, test_rows=known.test_rows)
    if why := no_room(configs(spec.model.name), found, known):
        # Estimated lengths may be wrong.
        return replace(cell, status="refused" if known.known else "not known", why=why)
    device, room = on
    memory = found.at(longest(spec, known)).peak if found.rehearsals else Memory(found.weight_bytes, 0, 0, 0)
    held: dict[str, Any] = memory.costs()
    training, whole = _work(spec, found, known, device)
    cell = replace(
        cell,
        **held,
        train_flops=training.flops,
        train_seconds=device.seconds(training) if found.rehearsals else None,
        seconds=whole,
        joules=None if whole is None or device.watts is None else whole * device.watts,
        known_lengths=known.known,
    )
    if memory.total > room:
        why = f"needs {memory.total / 1e9:.1f} GB at its peak; there are {room / 1e9:.1f} GB for a run"
        return replace(cell, status="does not fit", why=why)
    return cell


def no_room(config: Any, found: Profile, known: RowLengths) -> str:
    """Return why the longest row exceeds the positions of the model, as checked in a run; empty if it fits."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    prompted: Any = SimpleNamespace(virtual_tokens=found.virtual_tokens, soft_prompt=found.soft_prompt or None)
    rows = [Encoded([0] * prompt, [0] * target) for prompt, target in known.train]
    needed = model_family(config).positions(prompted, rows, known.longest_answer)
    if positions is None or needed <= positions:
        return ""
    return (
        f"the longest row needs {needed} positions with its answer and {found.virtual_tokens} virtual tokens, "
        f"and the model has {positions}"
    )


def _known(estimated: Sequence[CostEstimate]) -> dict[str, Any]:
    """Return the parameters and FLOPs of an estimate; empty without an estimate."""
    names = ("trainable_parameters", "total_parameters", "forward_flops_512", "extra_forward_flops_512")
    return {name: getattr(one, name) for one in estimated for name in names}


def _work(spec: RunSpec, found: Profile, known: RowLengths, device: Device) -> tuple[Counts, float | None]:
    """Return the counts of all training steps, and the seconds of the whole run."""
    steps = total_steps(spec.train, known.training_rows) if found.rehearsals else 0
    training = Counts(0, 0, 0)
    if steps:
        sample = [found.at(shape).counts for shape in _batches(spec, known)]
        training = Counts(*(round(steps * sum(part) / len(sample)) for part in zip(*sample, strict=True)))
    tokens = sum(map(sum, known.train)) / len(known.train)
    validated = known.validation_rows * (-(-steps // validate_every(spec.train, steps)) if steps else 0)
    read = (known.test_rows + validated) * tokens / 512
    batches = (known.test_rows + validated) / spec.eval.per_device_eval_batch_size
    # Each new token of a batch is a separate pass that reads all weights.
    said = known.longest_answer * known.test_rows / spec.eval.per_device_eval_batch_size
    other = Counts(
        round(found.forward.flops * read),
        round(found.forward.calls * (batches + said)),
        round(found.forward.written * read + found.weight_bytes * said),
    )
    parts = device.seconds(training), device.seconds(other)
    return training, None if parts[0] is None or parts[1] is None else parts[0] + parts[1]


def _batches(spec: RunSpec, known: RowLengths) -> Iterator[BatchShape]:
    """Yield the shapes of 32 random micro-batches, each padded to its longest row."""
    generator = np.random.default_rng(0)
    size = min(spec.train.per_device_train_batch_size, known.training_rows)
    for _ in range(32):
        drawn = [known.train[i] for i in generator.integers(len(known.train), size=size)]
        target = round(sum(shape[1] for shape in drawn) / size)
        yield max(map(sum, drawn)) - target, target
