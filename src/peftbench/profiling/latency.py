"""Milliseconds per new token of the adapted model, merged and unmerged, and of its base, measured alternately."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch.nn import Parameter

from peftbench.core import device
from peftbench.core.spec import Evaluation, Latency
from peftbench.engine.base_model import Base
from peftbench.engine.decode_strategy import CACHED, Decoding, next_logits
from peftbench.engine.families import max_positions
from peftbench.engine.generation import low_precision
from peftbench.engine.quantization import quantization_constants
from peftbench.engine.tokenization import Encoded
from peftbench.methods import Adapted

TOKENS = 16
"""Timed new tokens per turn; end-of-sequence tokens are ignored."""
ROUNDS = 5
"""Measured rounds, after one warm-up round."""
clock = time.perf_counter

Turn = Callable[[], list[float]]
Rounds = dict[str, list[list[float]]]
"""Seconds of each token: model variant to a list per round."""


class Twin:
    """A copy of the modules of a base with shared tensors, made before the method is applied to the base.

    Weights trained in place change in both, which does not affect times; `plain` restores their dtypes.
    """

    def __init__(self, model: Any) -> None:
        # 8-bit layers move their weights into `state` in the first forward pass.
        states = [module.state for module in model.modules() if hasattr(module, "state")]
        shared = (*model.parameters(), *model.buffers(), *quantization_constants(model), *states)
        self.model = copy.deepcopy(model, {id(each): each for each in shared})
        self._types = {name: p.dtype for name, p in self.model.named_parameters(remove_duplicate=False)}

    def plain(self) -> Adapted:
        """Return the base without a method, in its original dtypes."""
        made: dict[int, Parameter] = {}
        for name, held in list(self.model.named_parameters(remove_duplicate=False)):
            if held.dtype != self._types[name]:
                owner, _, own = name.rpartition(".")
                kept = made.setdefault(id(held), Parameter(held.data.to(self._types[name]), requires_grad=False))
                setattr(self.model.get_submodule(owner), own, kept)
        return Adapted(self.model.eval(), self.model)


def measure_latencies(
    adapted: Adapted, twin: Twin, base: Base, asked: Evaluation, rows: Sequence[Encoded], *, how: Decoding = "padded"
) -> tuple[list[Latency], list[str]]:
    """Return latencies for one row and for the evaluation batch, and notes on measurements that are missing.

    Measurements that run out of memory are missing, and all of them if answers are computed without a cache.
    """
    if how not in CACHED:
        return [], ["latency: not measured, as this model answers without a cache"]
    adapted.model.eval()
    plain, found, notes = twin.plain(), list[Latency](), list[str]()
    most, batch = _room(adapted, base), asked.per_device_eval_batch_size
    for size in dict.fromkeys((1, batch)):
        prompts = middling([row.prompt[:most] for row in rows], size)
        if how == "same-length":
            prompts = [prompt[: min(map(len, prompts))] for prompt in prompts]
        try:
            found.append(summed_up(size, by_turns(_turns(adapted, plain, base, prompts))))
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error):
                raise
            notes.append(f"latency: {size} rows at once did not fit in memory")
            break
    return found * 2 if batch == 1 else found, notes


def _room(adapted: Adapted, base: Base) -> int | None:
    """Return the maximum prompt length that leaves room for the new tokens, or `None` if it is unlimited."""
    most = max_positions(base.config)
    return None if most is None else max(1, most - adapted.virtual_tokens - TOKENS)


def middling(prompts: Sequence[list[int]], count: int) -> list[list[int]]:
    """Return `count` prompts of medium length, repeated if there are fewer."""
    ordered = sorted(prompts, key=len)
    start = max(0, (len(ordered) - count) // 2)
    return list(islice(cycle(ordered[start : start + count]), count))


def _turns(adapted: Adapted, plain: Adapted, base: Base, prompts: list[list[int]]) -> dict[str, Turn]:
    merge = adapted.merge

    def timed(model: Adapted) -> list[float]:
        with low_precision(base):
            return token_times(model, prompts)

    def merged() -> list[float]:
        assert merge is not None
        with merge():
            return timed(adapted)

    turns: dict[str, Turn] = {"base": lambda: timed(plain), "unmerged": lambda: timed(adapted)}
    return turns if merge is None else turns | {"merged": merged}


@torch.no_grad()
def token_times(adapted: Adapted, prompts: Sequence[list[int]], tokens: int = TOKENS) -> list[float]:
    """Return the seconds of each new token of greedy answers to a batch of prompts."""
    steps = next_logits(adapted, prompts)
    token, times = next(steps).argmax(-1), []
    for _ in range(tokens):
        device.synchronize()
        started = clock()
        token = steps.send(token).argmax(-1)
        device.synchronize()
        times.append(clock() - started)
    return times


def by_turns(turns: Mapping[str, Turn], rounds: int = ROUNDS) -> Rounds:
    """Return the times of all turns in each round; the order alternates, and the first round is discarded."""
    found: Rounds = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            times = turns[name]()
            if number:
                found[name].append(times)
    return found


def summed_up(size: int, found: Rounds) -> Latency:
    """Return median and 95th percentile over tokens, and the median over rounds of the ratio to the base."""
    numbers: dict[str, float] = {}
    medians = {name: list(map(statistics.median, times)) for name, times in found.items()}
    for name, rounds in found.items():
        each = np.concatenate(rounds) * 1e3
        numbers |= {f"{name}_median_ms": float(np.median(each)), f"{name}_p95_ms": float(np.percentile(each, 95))}
        if name != "base":
            ratios = [own / of_base for own, of_base in zip(medians[name], medians["base"], strict=True)]
            numbers[f"{name}_over_base"] = statistics.median(ratios)
    return Latency(rows=size, **numbers)
