"""Milliseconds per new token: of the adapted model, merged and not, and of the untouched base, measured by turns."""

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
"""New tokens of a turn, each of them timed; what they are, and whether an answer would have ended, is no matter."""
ROUNDS = 5
"""Rounds that count. One more before them warms up."""
clock = time.perf_counter

Turn = Callable[[], list[float]]
Rounds = dict[str, list[list[float]]]
"""Seconds of each token, by what was measured, a list a round."""


class Twin:
    """The modules of a base once more, over the same tensors: what a method puts on the base is not on its twin.

    Weights that are trained in place are trained for both, which changes no time; a type that they were given for
    training is undone in `plain`. It must be made before the method is applied.
    """

    def __init__(self, model: Any) -> None:
        # Layers of eight bits move what they hold into their state when they first answer.
        states = [module.state for module in model.modules() if hasattr(module, "state")]
        shared = (*model.parameters(), *model.buffers(), *quantization_constants(model), *states)
        self.model = copy.deepcopy(model, {id(each): each for each in shared})
        self._types = {name: p.dtype for name, p in self.model.named_parameters(remove_duplicate=False)}

    def plain(self) -> Adapted:
        """The base as it was, to be called."""
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
    """At a batch of one row and at that of evaluation, with notes on what is missing: what did not fit in memory, and
    all of it where answers are computed without a cache, as there is no time of one more token then.
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
    """How many tokens of a prompt leave room for the new ones."""
    most = max_positions(base.config)
    return None if most is None else max(1, most - adapted.virtual_tokens - TOKENS)


def middling(prompts: Sequence[list[int]], count: int) -> list[list[int]]:
    """The prompts of middling length, so many; if there are fewer, again from the first."""
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
    """Seconds from one token to the next of greedy answers to prompts, all of them together."""
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
    """In each round every turn once; every other round backwards, so that none always follows the same one.

    The first round is not kept.
    """
    found: Rounds = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            times = turns[name]()
            if number:
                found[name].append(times)
    return found


def summed_up(size: int, found: Rounds) -> Latency:
    """Median and 95th percentile over all tokens; the median over rounds of the ratio of medians to the base's."""
    numbers: dict[str, float] = {}
    medians = {name: list(map(statistics.median, times)) for name, times in found.items()}
    for name, rounds in found.items():
        each = np.concatenate(rounds) * 1e3
        numbers |= {f"{name}_median_ms": float(np.median(each)), f"{name}_p95_ms": float(np.percentile(each, 95))}
        if name != "base":
            ratios = [own / of_base for own, of_base in zip(medians[name], medians["base"], strict=True)]
            numbers[f"{name}_over_base"] = statistics.median(ratios)
    return Latency(rows=size, **numbers)
