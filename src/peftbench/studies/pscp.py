"""PSCP, the PEFT Soft Cost Penalties: a score divided by what it cost (arXiv:2511.21285).

PSCP = P · Π (1 + cost / C) ^ -β, or in the exponential form P · Π exp(-β · cost / C), with P on a scale of 0 to 100.
Nothing but cost lowers it, and nothing free raises it. The constants C and exponents β are sets of weights
(`peftbench.studies._pscp_weights`).
"""

import math
from collections.abc import Mapping, Sequence

from peftbench.core.registry import did_you_mean
from peftbench.studies._pscp_weights import ALL_COSTS, COSTS, Weights, WeightSet, weight_set

__all__ = ["ALL_COSTS", "COSTS", "burden", "penalised_score", "weight_set"]


def penalised_score(
    score: float,
    costs: Mapping[str, float],
    weights: Weights = "paper",
    reference: Mapping[str, float] | None = None,
) -> float:
    """The score after its cost penalties, from 0 to `score`.

    Args:
        score: on a scale of 0 to 100.
        costs: those of the weight set, none negative; others of `ALL_COSTS` may be there and do not count.
        weights: the name of a weight set, a file of one (`Path`, or a text that ends in `.toml`), or a mapping: cost to
            (constant, exponent), or what such a file holds.
        reference: the constants that the set does not give itself: for `relative` those of full fine-tuning and the
            base, for `exponential` the highest costs of the methods compared.

    Raises:
        ValueError: a key that is missing or unknown, a cost that is negative or not a number, a score outside its
            scale, a constant that is not positive, a negative exponent, or a missing `reference`.
        UnknownNameError: an unknown weight set.
        WeightsError: a file or mapping that is no weight set; a `ValueError` too.
    """
    if not 0 <= score <= 100:
        raise ValueError(f"score {score:g} is outside 0 to 100")
    chosen = weight_set(weights)
    _check_keys("costs", costs, chosen.terms)
    result = float(score)
    for cost, (constant, exponent) in _terms(chosen, reference).items():
        value = costs[cost]
        if not 0 <= value < math.inf:
            raise ValueError(f"{cost} is {value:g}: a cost must be a number of 0 or more")
        share = value / constant
        result *= (1 + share) ** -exponent if chosen.form == "power" else math.exp(-exponent * share)
    return result


def burden(form: str, cost: float, constant: float) -> float:
    """By how much an exponent of 1 lowers the natural logarithm of the score: in it, both forms are linear in β."""
    return math.log1p(cost / constant) if form == "power" else cost / constant


def _terms(weights: WeightSet, reference: Mapping[str, float] | None) -> dict[str, tuple[float, float]]:
    """Cost to (constant, exponent), with the constants of `reference` where the set has none."""
    needed = weights.measured
    if needed and reference is None:
        raise ValueError(f"weights '{weights.name}' need a reference that gives {', '.join(needed)}")
    given = reference or {}
    _check_keys("reference", given, needed)
    for cost in needed:
        if not 0 < given[cost] < math.inf:
            raise ValueError(f"the constant of {cost} is {given[cost]:g}: it must be positive")
    return {c: (given[c] if constant is None else constant, beta) for c, (constant, beta) in weights.terms.items()}


def _check_keys(what: str, given: Mapping[str, float], needed: Mapping[str, object] | Sequence[str]) -> None:
    for cost in given:
        if cost not in ALL_COSTS:
            raise ValueError(str(did_you_mean(f"cost in {what}", cost, list(ALL_COSTS))))
    missing = [cost for cost in needed if cost not in given]
    if missing:
        raise ValueError(f"{what} lack {', '.join(missing)}")
