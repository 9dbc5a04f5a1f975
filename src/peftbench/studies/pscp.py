"""PSCP, the PEFT Soft Cost Penalties: a score reduced by cost penalties (arXiv:2511.21285).

PSCP = P · Π (1 + cost / C) ^ -β, or in the exponential form P · Π exp(-β · cost / C), with P on a scale of 0 to 100.
Each cost lowers the score; a cost of zero leaves it unchanged. The constants C and exponents β come from weight sets
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
    """Return the score after cost penalties, from 0 to `score`.

    Args:
        score: a score on a scale of 0 to 100.
        costs: the costs of the weight set, none negative; other costs of `ALL_COSTS` are ignored.
        weights: the name of a weight set, its file (`Path`, or a string that ends in `.toml`), or a mapping: cost to
            (constant, exponent), or the content of such a file.
        reference: the constants that the set does not give: for `relative` the costs of full fine-tuning and of the
            base model's forward pass, for `exponential` the highest costs of the methods compared.

    Raises:
        ValueError: a key is missing or unknown, a cost is negative or not a number, the score is outside its scale, a
            constant is not positive, an exponent is negative, or `reference` is missing.
        UnknownNameError: no weight set has this name.
        WeightsError: a file or mapping is not a valid weight set; also a `ValueError`.
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
    """Return by how much an exponent of 1 lowers the natural logarithm of the score; both forms are linear in β."""
    return math.log1p(cost / constant) if form == "power" else cost / constant


def _terms(weights: WeightSet, reference: Mapping[str, float] | None) -> dict[str, tuple[float, float]]:
    """Return cost to (constant, exponent), with the constants of `reference` where the set has none."""
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
