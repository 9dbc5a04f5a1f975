"""PSCP of the methods of a leaderboard: the constants used, and the reason if a method has no PSCP."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftbench.core.costs import WEIGHED
from peftbench.studies._pscp_weights import WeightSet
from peftbench.studies.pscp import penalised_score

if TYPE_CHECKING:
    import pandas as pd

NOT_BY_DEFAULT = {"latency_ms": "latency = true under [eval] of a grid measures it"}


@dataclass(frozen=True)
class Pscp:
    """A PSCP value, or the reason why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Paid:
    """Mean `score` of a method over all cells, and its known `costs` in the units of PSCP.

    `why_not` is the reason why the method cannot be compared with any weights; its score is then ignored.
    """

    score: float
    costs: Mapping[str, float]
    why_not: str | None = None


def paid(score: float | None, costs: Mapping[str, float | None], why_not: str | None) -> Paid:
    """Return the score and the costs in the units of PSCP; the keys of `costs` are columns of the table of runs."""
    held = {cost: (costs.get(column), unit) for cost, (column, unit) in WEIGHED.items()}
    return Paid(
        score or 0.0, {cost: value / unit for cost, (value, unit) in held.items() if value is not None}, why_not
    )


def pscp_constants(
    weights: WeightSet, methods: Mapping[str, Paid], full: Mapping[str, float] | str
) -> dict[str, float] | str:
    """Return the constants of a weight set, or the reason why they are unknown.

    Args:
        weights: the weight set.
        methods: the methods that are compared.
        full: the costs of full fine-tuning (`full_fine_tuning`), or the reason why they are unknown.
    """
    given = {cost: constant for cost, (constant, _) in weights.terms.items() if constant is not None}
    if not weights.measured:
        return given
    if weights.reference == "full":
        if isinstance(full, str):
            return full
        lacking = [cost for cost in weights.measured if cost not in full]
        if lacking:
            return f"{', '.join(lacking)} of full fine-tuning is not known"
        return given | {cost: full[cost] for cost in weights.measured}
    whole = [one for one in methods.values() if not one.why_not and not set(weights.terms) - set(one.costs)]
    highest = {cost: max((one.costs[cost] for one in whole), default=0.0) for cost in weights.measured}
    # If no method has this cost, the penalty is zero for any positive constant.
    return given | {cost: value if value > 0 else 1.0 for cost, value in highest.items()}


def penalised(weights: WeightSet, methods: Mapping[str, Paid], used: Mapping[str, float] | str) -> dict[str, Pscp]:
    """Return the PSCP of each method with the constants `used` (`pscp_constants`), or the reason why it has none."""
    return {method: _pscp(weights, one, used) for method, one in methods.items()}


def _pscp(weights: WeightSet, one: Paid, used: Mapping[str, float] | str) -> Pscp:
    if one.why_not:
        return Pscp(None, one.why_not)
    hints = [hint for cost, hint in NOT_BY_DEFAULT.items() if cost in weights.terms and cost not in one.costs]
    if isinstance(used, str):
        return Pscp(None, used)
    try:
        return Pscp(penalised_score(one.score, one.costs, weights, used))
    except ValueError as error:
        return Pscp(None, ": ".join([str(error), *hints]))


def full_fine_tuning(table: "pd.DataFrame", good: "pd.DataFrame") -> dict[str, float] | str:
    """Return the costs of full fine-tuning on the tasks of a leaderboard in the units of PSCP, or why they are unknown.

    The TFLOPs are those of the forward pass of the base model. `table` has all runs; `good` has the runs of the
    leaderboard that have a score.
    """
    machine, model, tasks = good["machine_class"], good["model"], set(good["task"])
    same = table["machine_class"].isin(machine) & table["model"].isin(model) & table["task"].isin(tasks)
    full = table[same & (table["method"] == "full") & (table["status"] == "ok") & table["score"].notna()]
    if full.empty:
        return "full fine-tuning of this model was not run on this machine class"
    lacking = sorted(tasks - set(full["task"]))
    if lacking:
        return f"full fine-tuning has no run of {', '.join(lacking)}"
    costs = {
        "trainable_parameters": full["trainable_parameters"].median(),
        "extra_forward_tflops": (full["forward_flops_512"] - full["extra_forward_flops_512"]).median() / 1e12,
        "peak_memory_gb": full["peak_memory_bytes"].max() / 1e9,
        "latency_ms": full["latency_ms"].median(),
    }
    return {cost: float(value) for cost, value in costs.items() if value == value}
