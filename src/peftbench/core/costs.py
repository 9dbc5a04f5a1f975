"""Declarations of the costs of a run.

The record of a run (`peftbench.core.spec.Costs`), the table of runs, the leaderboard, the limits of the advisor and the
weights of PSCP take names, units, directions and headings from these declarations. `docs/measures.md` describes how
each cost is measured.
"""

from dataclasses import dataclass
from typing import Literal

Better = Literal["less", "more", ""]
"""The better direction; empty if there is none."""


@dataclass(frozen=True)
class LeaderboardColumn:
    """A column of the leaderboard: its `place`, its `heading`, and the format `form` of the value over `divisor`.

    With `always`, the column is shown even if no run has a value.
    """

    place: int
    heading: str
    meaning: str
    divisor: float = 1.0
    form: str = ",.0f"
    always: bool = True


@dataclass(frozen=True)
class Cost:
    """A cost of a run.

    Attributes:
        name: the column of the table of runs.
        unit: the unit of its values; empty for counts and texts.
        better: the better direction.
        description: what is counted or measured.
        summary: the statistic over the runs of a method in a leaderboard; empty if there is none.
        of_machine: whether it depends on the machine, so that it is compared only within one class of machines.
        column: its column of the leaderboard, if any.
        limit: its name as a limit of the advisor; empty if it cannot be limited.
        weighed: its name in the weights of PSCP, and the unit of PSCP in units of this cost; `None` if it has none.
    """

    name: str
    unit: str
    better: Better
    description: str
    summary: Literal["median", "mean", "max", ""] = ""
    of_machine: bool = True
    column: LeaderboardColumn | None = None
    limit: str = ""
    weighed: tuple[str, float] | None = None


_DECLARED = (
    Cost(
        name="trainable_parameters",
        unit="",
        better="less",
        description="parameters that training changes",
        summary="median",
        of_machine=False,
        column=LeaderboardColumn(
            1, "Trainable", "Parameters that training changes, and their share of all parameters of the adapted model."
        ),
        limit="trainable parameters",
        weighed=("trainable_parameters", 1.0),
    ),
    Cost(
        name="total_parameters",
        unit="",
        better="less",
        description="all parameters of the adapted model",
        summary="median",
        of_machine=False,
    ),
    Cost(
        name="forward_flops_512",
        unit="FLOP",
        better="less",
        description="one forward pass, batch 1, 512 tokens, as trained",
        of_machine=False,
    ),
    Cost(
        name="extra_forward_flops_512",
        unit="FLOP",
        better="less",
        description="added to those of the base model; 0 after an exact merge",
        summary="median",
        of_machine=False,
        column=LeaderboardColumn(
            5, "+TFLOP", "Forward TFLOPs added to those of the base model, 1 × 512 tokens.", 1e12, ".3g"
        ),
        weighed=("extra_forward_tflops", 1e12),
    ),
    Cost(
        name="train_seconds",
        unit="s",
        better="less",
        description="sum over the training steps, without validation",
        summary="mean",
        column=LeaderboardColumn(
            2, "Train s", "Seconds of the training steps, without validation, mean over the runs."
        ),
        limit="training time",
    ),
    Cost(
        name="tokens_per_second",
        unit="tokens/s",
        better="more",
        description="non-padding training tokens over train_seconds",
        summary="mean",
        column=LeaderboardColumn(3, "Tok/s", "Non-padding training tokens per second of training, mean over the runs."),
    ),
    Cost(
        name="peak_memory_bytes",
        unit="bytes",
        better="less",
        description="of training steps: weights, gradients, states, activations",
        summary="max",
        column=LeaderboardColumn(4, "Peak MB", "Peak memory of training steps in 1e6 bytes, highest of the runs.", 1e6),
        limit="peak memory",
        weighed=("peak_memory_gb", 1e9),
    ),
    Cost("peak_weights_bytes", "bytes", "less", "part of the peak: weights"),
    Cost("peak_gradients_bytes", "bytes", "less", "part of the peak: gradients"),
    Cost("peak_optimizer_states_bytes", "bytes", "less", "part of the peak: states of the optimizer"),
    Cost("peak_activations_bytes", "bytes", "less", "part of the peak: activations and everything else"),
    Cost("peak_reserved_bytes", "bytes", "less", "GPU memory reserved by the allocator at the peak"),
    Cost("peak_memory_source", "", "", "source of the peak: the tracker of tensors, or the allocator of the GPU"),
    Cost("validation_seconds", "s", "less", "sum of all validations"),
    Cost("eval_seconds", "s", "less", "generating or ranking answers for all test rows", summary="mean"),
    Cost(
        name="eval_peak_memory_bytes",
        unit="bytes",
        better="less",
        description="peak while answering the batch of the longest test prompts",
        summary="max",
    ),
    Cost(
        name="latency_ms",
        unit="ms",
        better="less",
        description="median time per new token at batch 1, merged if the merge is exact",
        summary="mean",
        column=LeaderboardColumn(
            6,
            "ms/tok",
            "Median milliseconds per new token at batch 1, merged if the merge is exact, mean over the runs.",
            form=",.2f",
            always=False,
        ),
        limit="latency",
        weighed=("latency_ms", 1.0),
    ),
    Cost(
        name="train_energy_joules",
        unit="J",
        better="less",
        description="during train_seconds",
        summary="mean",
        column=LeaderboardColumn(7, "Train J", "Joules of the training steps, mean over the runs.", always=False),
    ),
    Cost("eval_energy_joules", "J", "less", "during eval_seconds", summary="mean"),
    Cost("energy_source", "", "", "nvml: the GPU; rapl: processor packages"),
    Cost("load_seconds", "s", "less", "loading the base model; 0 if it was already in memory"),
    Cost("tokenize_seconds", "s", "less", "encoding all rows; near 0 if they are cached"),
    Cost(
        name="adapter_bytes",
        unit="bytes",
        better="less",
        description="weight files needed, besides the base model, to use the trained model",
        summary="median",
        of_machine=False,
        limit="adapter size",
    ),
    Cost("base_text_loss", "nats/token", "less", "loss of the base model on general text"),
    Cost(
        name="retention_loss_change",
        unit="nats/token",
        better="less",
        description="change of base_text_loss by tuning",
        summary="mean",
        column=LeaderboardColumn(
            8,
            "Forgets",
            "Rise of the loss on general text by tuning, in nats per token, mean over the runs.",
            form="+.3f",
            always=False,
        ),
    ),
)
COSTS = {cost.name: cost for cost in _DECLARED}
"""All costs by name."""
COUNTED = {cost.name: cost.summary for cost in _DECLARED if cost.summary and not cost.of_machine}
"""Machine-independent costs, each with its statistic over the runs of a method."""
MEASURED = {
    cost.name: cost.summary
    for cost in sorted(_DECLARED, key=lambda cost: cost.summary != "max")
    if cost.summary and cost.of_machine
}
"""Machine-dependent costs, each with its statistic over the runs of a method."""
WEIGHED = {cost.weighed[0]: (cost.name, cost.weighed[1]) for cost in _DECLARED if cost.weighed}
"""Costs of PSCP by their names in weights: the column, and the unit of PSCP in units of the column."""
LIMITS = {cost.name: cost.limit for cost in _DECLARED if cost.limit}
"""Costs that the advisor can limit, with their display names."""
