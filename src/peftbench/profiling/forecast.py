"""What a grid will cost, before anything is fetched or run: parameters, operations, memory, bytes, time, energy."""

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
Told = Callable[[int, int], None]
"""Called with how many profiles are done, and of how many."""


@dataclass(frozen=True)
class CellForecast:
    """A cell of a grid, and what each of its runs (one a seed) will cost. `None`: not known, or there is none.

    `seconds` are of training, validation and test; `train_seconds` of training steps alone. `joules` are at most: the
    device's highest draw over `seconds`. `known_lengths`: rows were read by the model's tokenizer, not judged.
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
    """All cells of a grid on a device, done by so many workers at a time."""

    device: Device
    workers: int
    cells: tuple[CellForecast, ...]

    def total(self, cost: str) -> float | None:
        """The sum of a cost over all runs that can be done; `None` if it is not known of one."""
        values = [(getattr(cell, cost), cell.seeds) for cell in self.runnable]
        return None if any(value is None for value, _ in values) else float(sum(v * n for v, n in values))

    @property
    def runnable(self) -> list[CellForecast]:
        """The cells that are worth a try: all but those refused and those that do not fit."""
        return [cell for cell in self.cells if cell.status in ("fits", "not known")]

    @property
    def makespan(self) -> float | None:
        """Seconds until the last run is done, when each worker takes the next run as soon as it is free."""
        loads = [0.0] * self.workers
        for cell in self.runnable:
            if cell.seconds is None:
                return None
            for _ in range(cell.seeds):
                heapq.heappush(loads, heapq.heappop(loads) + cell.seconds)
        return max(loads)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the totals."""
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
    told: Told = lambda *_: None,
    processes: int = 1,
) -> Forecast:
    """The costs of runs on a device, on which as many run at a time as there are workers.

    A machine without a GPU shares its memory among its workers. Needs no weights and no network. `processes` other than
    1 are forked, where the system can: not for a process in which torch has computed on several threads.
    """
    cells: dict[str, list[RunSpec]] = {}
    for spec in specs:
        cells.setdefault(spec.model_copy(update={"seed": 0, "trial": None}).id, []).append(spec)
    # Lengths of rows do not depend on the method.
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
    found = dict(zip(groups, _profiles(asked, told, processes), strict=True))
    room = on.memory_bytes // (1 if on.queued else max(1, workers))
    configs = cache(configuration)
    judged = [_cell(runs, found[_group(runs[0])], lengths[id_], (on, room), configs) for id_, runs in cells.items()]
    return Forecast(on, workers, tuple(judged))


def _group(spec: RunSpec) -> str:
    """Runs that share a profile: of one model, method and way of training."""
    return f"{spec.model} {spec.method.model_dump_json()} {spec.train.model_dump_json()}"


def longest(spec: RunSpec, known: RowLengths) -> BatchShape:
    """The shape of the micro-batch of the longest rows, padded to the longest."""
    chosen = sorted(known.train, key=sum)[-spec.train.per_device_train_batch_size :]
    target = round(sum(shape[1] for shape in chosen) / len(chosen))
    return max(map(sum, chosen)) - target, target


def _profiles(asked: Sequence[Any], told: Told, processes: int) -> list[Any]:
    """Profiles, or why there is none; in several processes where that pays and the system can fork."""
    count = min(len(asked), processes)
    found: list[Any] = []
    if count < 2 or len(asked) < 4 or sys.platform != "linux":
        for each in asked:
            found.append(_profile(each))
            told(len(found), len(asked))
        return found
    with ProcessPoolExecutor(count, multiprocessing.get_context("fork")) as pool:
        for each in pool.map(_profile, asked):
            found.append(each)
            told(len(found), len(asked))
    return found


def _profile(asked: tuple[RunSpec, tuple[BatchShape, ...], bool | None]) -> Any:
    """A profile; else the cell's status, why there is none, and where it can be had what is known all the same."""
    found = _tried(partial(profile, *asked))
    if isinstance(found, Profile) or found[0] == "refused":
        return found
    spec = asked[0]
    counted = _tried(lambda: estimate_costs(configuration(spec.model.name), spec.method.name, **given(spec.method)))
    # Methods that read weights are refused where they are put on some, not before.
    return (*found, counted) if isinstance(counted, CostEstimate) else counted if counted[0] == "refused" else found


def _tried(make: Callable[[], Any]) -> Any:
    """What is made, or the cell's status and why there is nothing."""
    try:
        return make()
    except UserError as error:
        return "refused", str(error)
    except Exception as error:
        # Some methods cannot be put on a model without values; that is no reason not to run them.
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
        # Lengths that were judged, not read, may be wrong.
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
    """Why the longest row will be refused for want of positions, as in a run; empty if it will not be."""
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
    """The parameters and operations of an estimate, if there is one."""
    names = ("trainable_parameters", "total_parameters", "forward_flops_512", "extra_forward_flops_512")
    return {name: getattr(one, name) for one in estimated for name in names}


def _work(spec: RunSpec, found: Profile, known: RowLengths, device: Device) -> tuple[Counts, float | None]:
    """The work of all training steps, and the seconds of the whole run."""
    steps = total_steps(spec.train, known.training_rows) if found.rehearsals else 0
    training = Counts(0, 0, 0)
    if steps:
        sample = [found.at(shape).counts for shape in _batches(spec, known)]
        training = Counts(*(round(steps * sum(part) / len(sample)) for part in zip(*sample, strict=True)))
    tokens = sum(map(sum, known.train)) / len(known.train)
    validated = known.validation_rows * (-(-steps // validate_every(spec.train, steps)) if steps else 0)
    read = (known.test_rows + validated) * tokens / 512
    batches = (known.test_rows + validated) / spec.eval.per_device_eval_batch_size
    # A new token of a batch is a pass of its own, in which all weights are read.
    said = known.longest_answer * known.test_rows / spec.eval.per_device_eval_batch_size
    other = Counts(
        round(found.forward.flops * read),
        round(found.forward.calls * (batches + said)),
        round(found.forward.written * read + found.weight_bytes * said),
    )
    parts = device.seconds(training), device.seconds(other)
    return training, None if parts[0] is None or parts[1] is None else parts[0] + parts[1]


def _batches(spec: RunSpec, known: RowLengths) -> Iterator[BatchShape]:
    """The shapes of some micro-batches drawn from the rows, each padded to its longest."""
    generator = np.random.default_rng(0)
    size = min(spec.train.per_device_train_batch_size, known.training_rows)
    for _ in range(32):
        drawn = [known.train[i] for i in generator.integers(len(known.train), size=size)]
        target = round(sum(shape[1] for shape in drawn) / size)
        yield max(map(sum, drawn)) - target, target
