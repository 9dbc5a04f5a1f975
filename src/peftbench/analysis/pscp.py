"""PSCP, the PEFT Soft Cost Penalties: a score divided by what it cost (arXiv:2511.21285).

PSCP = P · Π (1 + cost / C) ^ -β over three costs, with P on a scale of 0 to 100. Nothing but cost lowers it, and
nothing free raises it. The constants C and exponents β are named sets in `weights/*.toml`.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from peftbench.registry import did_you_mean

COSTS = ("trainable_parameters", "extra_forward_tflops", "peak_memory_gb")
"""Counted parameters; TFLOPs over the base's forward pass of 1 x 512 tokens; training's peak in units of 1e9 bytes."""


@dataclass(frozen=True)
class WeightSet:
    """A named set of weights; `terms` is cost to (constant, exponent), the constant `None` if measured."""

    name: str
    version: int
    source: str
    terms: Mapping[str, tuple[float | None, float]]


@cache
def weight_set(name: str) -> WeightSet:
    """The set `weights/<name>.toml`. Raises `UnknownNameError` with the nearest name."""
    known = {f.name.removesuffix(".toml"): f for f in files("peftbench.analysis").joinpath("weights").iterdir()}
    if name not in known:
        raise did_you_mean("weight set", name, list(known))
    content = tomllib.loads(known[name].read_text("utf-8"))
    terms = {cost: (content[cost].get("constant"), content[cost]["exponent"]) for cost in COSTS}
    return WeightSet(name, content["version"], content["source"], terms)


def pscp(
    score: float,
    costs: Mapping[str, float],
    weights: str | Mapping[str, tuple[float, float]] = "paper",
    reference: Mapping[str, float] | None = None,
) -> float:
    """The score after its cost penalties, from 0 to `score`.

    Args:
        score: on a scale of 0 to 100.
        costs: exactly the keys of `COSTS`, none negative.
        weights: the name of a weight set, or cost to (constant, exponent) for each of `COSTS`.
        reference: the constants of a set that has none of its own, such as `relative`; the keys of `COSTS`.

    Raises:
        ValueError: a key that is missing or unknown, a cost that is negative or not a number, a score outside its
            scale, a constant that is not positive, a negative exponent, or a missing `reference`.
        UnknownNameError: an unknown weight set.
    """
    if not 0 <= score <= 100:
        raise ValueError(f"score {score:g} is outside 0 to 100")
    _check_keys("costs", costs)
    result = float(score)
    for cost, (constant, exponent) in _terms(weights, reference).items():
        value = costs[cost]
        if not 0 <= value < math.inf:
            raise ValueError(f"{cost} is {value:g}: a cost must be a number of 0 or more")
        if not 0 < constant < math.inf:
            raise ValueError(f"the constant of {cost} is {constant:g}: it must be positive")
        if not 0 <= exponent < math.inf:
            raise ValueError(f"the exponent of {cost} is {exponent:g}: it must be 0 or more")
        result *= (1 + value / constant) ** -exponent
    return result


def _terms(
    weights: str | Mapping[str, tuple[float, float]], reference: Mapping[str, float] | None
) -> dict[str, tuple[float, float]]:
    if not isinstance(weights, str):
        _check_keys("weights", weights)
        return dict(weights)
    terms = weight_set(weights).terms
    needed = [cost for cost, (constant, _) in terms.items() if constant is None]
    if needed and reference is None:
        raise ValueError(f"weights '{weights}' need a reference that gives {', '.join(needed)}")
    given = reference or {}
    if needed:
        _check_keys("reference", given)
    return {cost: (given[cost] if constant is None else constant, beta) for cost, (constant, beta) in terms.items()}


def _check_keys(what: str, given: Mapping[str, object]) -> None:
    for cost in given:
        if cost not in COSTS:
            raise ValueError(str(did_you_mean(f"cost in {what}", cost, list(COSTS))))
    missing = [cost for cost in COSTS if cost not in given]
    if missing:
        raise ValueError(f"{what} lack {', '.join(missing)}")
