"""The table of runs: what each column holds. `docs/results-table.md` is made from this (`make generate`)."""

from dataclasses import dataclass
from typing import Literal

from peftbench.core.costs import COSTS, Better
from peftbench.core.spec import Costs, Latency

ColumnType = Literal["text", "integer", "number", "yes or no", "numbers", "JSON", "integer or text"]
"""What the values of a column are. Any column may lack a value but `id`, `model`, `method`, `task` and `status`."""
LATENCIES = ("latency", "batch_latency")
"""How columns of `RunResult.latency` begin: for one row, for the batch of evaluation."""


@dataclass(frozen=True)
class TableColumn:
    """A column of the table of runs, with its unit and with which direction is better, where there is one."""

    name: str
    kind: ColumnType
    description: str
    unit: str = ""
    better: Better = ""


_TEXTS = ("peak_memory_source", "energy_source")
_INTEGERS = {name for name, field in Costs.model_fields.items() if field.annotation == int | None}
_LATENCY = {
    "rows": TableColumn("rows", "integer", "prompts answered at once"),
    "base_median_ms": TableColumn("", "number", "median time of a new token of the untouched base", "ms", "less"),
    "base_p95_ms": TableColumn("", "number", "95th percentile of the untouched base", "ms", "less"),
    "unmerged_median_ms": TableColumn("", "number", "median time of a new token, adapter not merged", "ms", "less"),
    "unmerged_p95_ms": TableColumn("", "number", "95th percentile, adapter not merged", "ms", "less"),
    "unmerged_over_base": TableColumn("", "number", "ratio to the base, adapter not merged", "", "less"),
    "merged_median_ms": TableColumn("", "number", "median time of a new token, adapter merged", "ms", "less"),
    "merged_p95_ms": TableColumn("", "number", "95th percentile, adapter merged", "ms", "less"),
    "merged_over_base": TableColumn("", "number", "ratio to the base, adapter merged", "", "less"),
}


def _cost(name: str) -> TableColumn:
    cost = COSTS[name]
    kind: ColumnType = "text" if name in _TEXTS else "integer" if name in _INTEGERS else "number"
    return TableColumn(name, kind, cost.description, cost.unit, cost.better)


def _latency(start: str, name: str) -> TableColumn:
    held = _LATENCY[name]
    about = "one prompt" if start == "latency" else "the batch of evaluation"
    return TableColumn(f"{start}_{name}", held.kind, f"{held.description}, with {about}", held.unit, held.better)


TABLE_SCHEMA = (
    TableColumn("id", "text", "the run: twelve hexadecimal digits of the content of its spec"),
    TableColumn("machine_class", "text", "processor or GPU and number of cores; costs are compared within one"),
    TableColumn("model", "text", "base model, as tables call it"),
    TableColumn("model_source", "text", "its alias, Hub id or path"),
    TableColumn("model_version", "text", "commit of the Hub, or digest of its files"),
    TableColumn("method", "text", "method, as tables call it"),
    TableColumn("method_version", "text", "raised by a change that alters results"),
    TableColumn("method_arguments", "text", "names and JSON values, in the order of the names"),
    TableColumn("task", "text", "task, as tables call it"),
    TableColumn("task_version", "text", "raised by a change that alters results; of files, their digests"),
    TableColumn("task_arguments", "text", "names and JSON values, in the order of the names"),
    TableColumn("fingerprint", "text", "digest of the rows that were used"),
    TableColumn("evaluation", "text", "settings of answering that differ from the defaults"),
    TableColumn("size", "integer or text", "training rows that were asked for, or `all`"),
    TableColumn("seed", "integer", "chooses training rows, their order and the start"),
    TableColumn("trial", "integer", "number of the trial of a search, from 0; none for other runs"),
    TableColumn("search", "text", "the search that the trial belongs to"),
    TableColumn("tuned", "text", "arguments of the method that a search chose"),
    TableColumn("training", "text", "settings of training that differ from the defaults"),
    TableColumn("status", "text", "how the run ended: ok, out-of-memory, diverged, refused, pruned, timeout or failed"),
    TableColumn("metric", "text", "main metric of the task"),
    TableColumn("metric_version", "text", "raised by a change that gives the same answers another score"),
    TableColumn("score", "number", "main metric on the test rows, from 0 to 100", "points", "more"),
    TableColumn("score_error", "number", "standard error of the score over test rows", "points", "less"),
    TableColumn("chance", "number", "score of the best answer that is the same for all test rows", "points"),
    TableColumn(
        "row_scores", "numbers", "main metric of each test row or group of rows; NaN where it has none", "points"
    ),
    TableColumn("scores", "JSON", "every metric by name", "points", "more"),
    TableColumn("invalid_share", "number", "share of answers outside the labels, choices or scale", "", "less"),
    TableColumn("validation_loss", "number", "at the best step, the one that was tested", "nats/token", "less"),
    TableColumn(
        "merged_score", "number", "score with the adapter merged, where `merge_fidelity` asks for it", "points", "more"
    ),
    TableColumn("merged_logit_difference", "number", "largest difference of logits, merged to unmerged", "", "less"),
    TableColumn("learning_rate", "number", "peak of the schedule"),
    TableColumn("best_step", "integer", "step of the lowest validation loss"),
    TableColumn("steps", "integer", "optimizer steps that were done"),
    TableColumn("epochs", "number", "passes over the training rows; none where steps are given"),
    TableColumn("batch_size", "integer", "rows of a batch", "rows"),
    TableColumn("accumulation", "integer", "batches of a step"),
    TableColumn("train_rows", "integer", "training rows that were used", "rows"),
    TableColumn("validation_rows", "integer", "validation rows that were used", "rows"),
    TableColumn("test_rows", "integer", "test rows that were answered", "rows"),
    TableColumn("truncated_rows", "integer", "rows that were cut to fit `max_length`", "rows", "less"),
    TableColumn("truncated_share", "number", "their share of all rows", "", "less"),
    TableColumn("data_remarks", "JSON", "what a report says of the rows"),
    TableColumn("precision", "text", "of the computation: fp32 or bf16"),
    TableColumn("workers", "integer", "worker processes that ran beside each other"),
    TableColumn("data", "text", "where the rows came from, and the revision"),
    TableColumn("base_reloaded", "yes or no", "the run changed the base, which was then loaded anew"),
    TableColumn("notes", "text", "what is missing or unusual, and why"),
    TableColumn("error", "text", "why there is no score"),
    *map(_cost, Costs.model_fields),
    _cost("latency_ms"),
    *(_latency(start, name) for start in LATENCIES for name in Latency.model_fields),
)
COLUMNS = tuple(column.name for column in TABLE_SCHEMA)


def page() -> str:
    """The schema as a page of Markdown."""
    lines = [
        f"| `{column.name}` | {column.kind} | {column.unit} | {column.better} | {column.description} |"
        for column in TABLE_SCHEMA
    ]
    return "\n".join(
        [
            "# The table of runs",
            "",
            "`peftbench.load_results(store).runs` and `peftbench export --format csv` have one row for each run, with",
            "these columns. A value that is not known is missing, never 0. This page is made by `make generate`.",
            "",
            "| column | type | unit | better | what it holds |",
            "|---|---|---|---|---|",
            *lines,
            "",
        ]
    )
