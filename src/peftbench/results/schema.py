"""The columns of the table of runs. `docs/results-table.md` is generated from this module (`make generate`)."""

from dataclasses import dataclass
from typing import Literal

from peftbench.core.costs import COSTS, Better
from peftbench.core.spec import Costs, Latency

ColumnType = Literal["text", "integer", "number", "yes or no", "numbers", "JSON", "integer or text"]
"""Type of a column's values. Only `id`, `model`, `method`, `task` and `status` always have a value."""
LATENCIES = ("latency", "batch_latency")
"""Prefixes of the columns of `RunResult.latency`: for one row, for the evaluation batch."""


@dataclass(frozen=True)
class TableColumn:
    """A column of the table of runs, with its unit and its better direction, if any."""

    name: str
    kind: ColumnType
    description: str
    unit: str = ""
    better: Better = ""


_TEXTS = ("peak_memory_source", "energy_source")
_INTEGERS = {name for name, field in Costs.model_fields.items() if field.annotation == int | None}
_LATENCY = {
    "rows": TableColumn("rows", "integer", "prompts answered at once"),
    "base_median_ms": TableColumn("", "number", "median time per new token of the base model", "ms", "less"),
    "base_p95_ms": TableColumn("", "number", "95th percentile of the base model", "ms", "less"),
    "unmerged_median_ms": TableColumn("", "number", "median time per new token, adapter not merged", "ms", "less"),
    "unmerged_p95_ms": TableColumn("", "number", "95th percentile, adapter not merged", "ms", "less"),
    "unmerged_over_base": TableColumn("", "number", "ratio to the base model, adapter not merged", "", "less"),
    "merged_median_ms": TableColumn("", "number", "median time per new token, adapter merged", "ms", "less"),
    "merged_p95_ms": TableColumn("", "number", "95th percentile, adapter merged", "ms", "less"),
    "merged_over_base": TableColumn("", "number", "ratio to the base model, adapter merged", "", "less"),
}


def _cost(name: str) -> TableColumn:
    cost = COSTS[name]
    kind: ColumnType = "text" if name in _TEXTS else "integer" if name in _INTEGERS else "number"
    return TableColumn(name, kind, cost.description, cost.unit, cost.better)


def _latency(start: str, name: str) -> TableColumn:
    column = _LATENCY[name]
    about = "one prompt" if start == "latency" else "the evaluation batch"
    return TableColumn(
        f"{start}_{name}", column.kind, f"{column.description}, with {about}", column.unit, column.better
    )


TABLE_SCHEMA = (
    TableColumn("id", "text", "run id: twelve hexadecimal digits of a digest of its spec"),
    TableColumn("machine_class", "text", "GPU, or processor and number of cores; costs are compared within one class"),
    TableColumn("model", "text", "display name of the base model"),
    TableColumn("model_source", "text", "its alias, Hub id or path"),
    TableColumn("model_version", "text", "commit on the Hub, or digest of its files"),
    TableColumn("method", "text", "display name of the method"),
    TableColumn("method_version", "text", "increased by a change that alters results"),
    TableColumn("method_arguments", "text", "names and JSON values, sorted by name"),
    TableColumn("task", "text", "display name of the task"),
    TableColumn("task_version", "text", "increased by a change that alters results; for files, their digests"),
    TableColumn("task_arguments", "text", "names and JSON values, sorted by name"),
    TableColumn("fingerprint", "text", "digest of the rows used"),
    TableColumn("evaluation", "text", "evaluation settings that differ from the defaults"),
    TableColumn("size", "integer or text", "requested training rows, or `all`"),
    TableColumn("seed", "integer", "determines training rows, their order and the initialisation"),
    TableColumn("trial", "integer", "number of the trial of a search, from 0; none for other runs"),
    TableColumn("search", "text", "the search that the trial belongs to"),
    TableColumn("tuned", "text", "method arguments chosen by a search"),
    TableColumn("training", "text", "training settings that differ from the defaults"),
    TableColumn("status", "text", "how the run ended: ok, out-of-memory, diverged, refused, pruned, timeout or failed"),
    TableColumn("metric", "text", "main metric of the task"),
    TableColumn("metric_version", "text", "increased by a change that gives the same answers another score"),
    TableColumn("score", "number", "main metric on the test rows, from 0 to 100", "points", "more"),
    TableColumn("score_error", "number", "standard error of the score over test rows", "points", "less"),
    TableColumn("chance", "number", "score of the best constant answer to all test rows", "points"),
    TableColumn("row_scores", "numbers", "main metric of each test row or group of rows; NaN if it has none", "points"),
    TableColumn("scores", "JSON", "every metric by name", "points", "more"),
    TableColumn("invalid_share", "number", "share of answers outside the labels, choices or scale", "", "less"),
    TableColumn("validation_loss", "number", "at the best step, whose weights were tested", "nats/token", "less"),
    TableColumn(
        "merged_score", "number", "score with the adapter merged, if `merge_fidelity` is set", "points", "more"
    ),
    TableColumn(
        "merged_logit_difference", "number", "largest difference of logits between merged and unmerged", "", "less"
    ),
    TableColumn("learning_rate", "number", "peak of the schedule"),
    TableColumn("best_step", "integer", "step of the lowest validation loss"),
    TableColumn("steps", "integer", "optimizer steps completed"),
    TableColumn("epochs", "number", "passes over the training rows; none if steps are set"),
    TableColumn("batch_size", "integer", "rows per batch", "rows"),
    TableColumn("accumulation", "integer", "batches per optimizer step"),
    TableColumn("train_rows", "integer", "training rows used", "rows"),
    TableColumn("validation_rows", "integer", "validation rows used", "rows"),
    TableColumn("test_rows", "integer", "test rows answered", "rows"),
    TableColumn("truncated_rows", "integer", "rows truncated to `max_length`", "rows", "less"),
    TableColumn("truncated_share", "number", "share of truncated rows among all rows", "", "less"),
    TableColumn("data_remarks", "JSON", "remarks on the rows, shown in reports"),
    TableColumn("precision", "text", "precision of the computation: fp32 or bf16"),
    TableColumn("workers", "integer", "number of parallel worker processes"),
    TableColumn("data", "text", "source of the rows, and its revision"),
    TableColumn("base_reloaded", "yes or no", "the run changed the base model, which was then reloaded"),
    TableColumn("notes", "text", "missing or unusual facts, with reasons"),
    TableColumn("error", "text", "reason for a missing score"),
    *map(_cost, Costs.model_fields),
    _cost("latency_ms"),
    *(_latency(start, name) for start in LATENCIES for name in Latency.model_fields),
)
COLUMNS = tuple(column.name for column in TABLE_SCHEMA)


def page() -> str:
    """Return the schema as a Markdown page."""
    lines = [
        f"| `{column.name}` | {column.kind} | {column.unit} | {column.better} | {column.description} |"
        for column in TABLE_SCHEMA
    ]
    return "\n".join(
        [
            "# The table of runs",
            "",
            "`peftbench.load_results(store).runs` and `peftbench export --format csv` have one row for each run, with",
            "these columns. An unknown value is missing, never 0. This page is generated by `make generate`.",
            "",
            "| column | type | unit | better | description |",
            "|---|---|---|---|---|",
            *lines,
            "",
        ]
    )
