"""What a run costs: each cost is declared once, here.

The record of a run (`peftbench.core.spec.Costs`), the table of runs, the leaderboard, the limits of the advisor and the
weights of PSCP take names, units, directions and headings from these declarations. How each is measured stands in
`docs/measures.md`.
"""

from dataclasses import dataclass
from typing import Literal

Better = Literal["less", "more", ""]
"""Which direction is better; empty: neither."""


@dataclass(frozen=True)
class LeaderboardColumn:
    """How a leaderboard shows a cost: at which `place`, under which `heading`, its value over `divisor` as `form`.

    `always`: also where no run has it.
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
        unit: of its values; empty for counts and texts.
        better: which direction is better.
        description: what is counted or measured.
        summary: how a leaderboard sums up the runs of a method: `median`, `mean` or `max`; empty: it does not.
        of_machine: it belongs to a class of machines, and is compared within one alone.
        column: how a leaderboard shows it, if it does.
        limit: what the advisor calls it where it may be limited; empty: it may not.
        weighed: what weights of PSCP call it, and that unit in units of this cost; `None`: it cannot be weighed.
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
        description="over the untouched base; 0 once merged exactly",
        summary="median",
        of_machine=False,
        column=LeaderboardColumn(5, "+TFLOP", "Forward TFLOPs over the untouched base, 1 × 512 tokens.", 1e12, ".3g"),
        weighed=("extra_forward_tflops", 1e12),
    ),
    Cost(
        name="train_seconds",
        unit="s",
        better="less",
        description="sum of training steps alone",
        summary="mean",
        column=LeaderboardColumn(2, "Train s", "Seconds of training steps alone, mean over the runs."),
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
    Cost("peak_activations_bytes", "bytes", "less", "part of the peak: activations and all else"),
    Cost("peak_reserved_bytes", "bytes", "less", "what a GPU's allocator took for the peak"),
    Cost("peak_memory_source", "", "", "what told the peak: the tracker of tensors, or the allocator of a GPU"),
    Cost("validation_seconds", "s", "less", "sum of all validations"),
    Cost("eval_seconds", "s", "less", "answering all test rows", summary="mean"),
    Cost(
        name="eval_peak_memory_bytes",
        unit="bytes",
        better="less",
        description="of answering the batch of the longest test prompts",
        summary="max",
    ),
    Cost(
        name="latency_ms",
        unit="ms",
        better="less",
        description="median time of a new token at batch 1, merged where that is exact",
        summary="mean",
        column=LeaderboardColumn(
            6,
            "ms/tok",
            "Median milliseconds per new token at batch 1, merged where exact, mean over the runs.",
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
        description="over the time of train_seconds",
        summary="mean",
        column=LeaderboardColumn(7, "Train J", "Joules of the training steps, mean over the runs.", always=False),
    ),
    Cost("eval_energy_joules", "J", "less", "over the time of eval_seconds", summary="mean"),
    Cost("energy_source", "", "", "nvml: the GPU; rapl: processor packages"),
    Cost("load_seconds", "s", "less", "loading the base; 0 where it stayed in memory"),
    Cost("tokenize_seconds", "s", "less", "encoding all rows; near 0 where they are cached"),
    Cost(
        name="adapter_bytes",
        unit="bytes",
        better="less",
        description="weight files that must be kept to use the trained model on its base",
        summary="median",
        of_machine=False,
        limit="adapter size",
    ),
    Cost("base_text_loss", "nats/token", "less", "of the untouched base on general text"),
    Cost(
        name="retention_loss_change",
        unit="nats/token",
        better="less",
        description="of that loss by tuning",
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
"""Costs that are the same on every machine, and how a leaderboard sums them up over a method's runs."""
MEASURED = {
    cost.name: cost.summary
    for cost in sorted(_DECLARED, key=lambda cost: cost.summary != "max")
    if cost.summary and cost.of_machine
}
"""Costs that belong to a machine, and how a leaderboard sums them up."""
WEIGHED = {cost.weighed[0]: (cost.name, cost.weighed[1]) for cost in _DECLARED if cost.weighed}
"""Costs of PSCP by the name that weights have for them: the column of each, and its unit in units of the column."""
LIMITS = {cost.name: cost.limit for cost in _DECLARED if cost.limit}
"""Costs that the advisor can limit, and what they are called."""
