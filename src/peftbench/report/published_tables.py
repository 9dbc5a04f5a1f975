"""Published results, shown separately from measured ones: a table per source and model, in the source's order."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from peftbench.report.tables import csv_text, table_markdown
from peftbench.studies._text_format import ABSENT, count_text
from peftbench.studies.presentation_blocks import Table

if TYPE_CHECKING:
    import pandas as pd

HEADING = "Published, not measured here"
REMARK = (
    "Code, prompts, training and machines differ from those used here: these results enter no mean, rank, PSCP or "
    "interval, and a difference to a measured score may have any of these causes."
)
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "trainable_parameters": ("Trainable", count_text),
    "train_seconds": ("Train s", lambda seconds: f"{seconds:,.0f}"),
    "peak_memory_bytes": ("Peak MB", lambda size: f"{size / 1e6:,.0f}"),
    "memory_reserved_max_bytes": ("Reserved MB, max", lambda size: f"{size / 1e6:,.0f}"),
    "memory_reserved_p99_bytes": ("Reserved MB, p99", lambda size: f"{size / 1e6:,.0f}"),
    "extra_forward_flops_512": ("+TFLOP", lambda flops: f"{flops / 1e12:.3g}"),
    "adapter_bytes": ("Adapter MB", lambda size: f"{size / 1e6:,.1f}"),
    "forgetting_loss": ("Forgetting", lambda loss: f"{loss:.3f}"),
}
"""Published costs that are shown; `published.csv` has all of them."""
ABOUT = ["source", "model", "train_data"]
"""Columns that define a table."""
RUN = ["method", "method_arguments", "published_as", "seed", "machine_class", "learning_rate"]
"""Columns that distinguish the lines of a table."""


def published_tables(published: "pd.DataFrame | None") -> list[Table]:
    """Return the tables of published rows (`peftbench.results.published.published_frame`); empty without rows."""
    if published is None or published.empty:
        return []
    return [_sheet(rows) for _, rows in published.groupby(ABOUT, sort=False)]


def _sheet(rows: "pd.DataFrame") -> Table:
    source, model, train_data = rows[ABOUT].iloc[0]
    tasks = list(dict.fromkeys(zip(rows["task"], rows["metric"], strict=True)))
    costs = [cost for cost in COSTS if rows[cost].notna().any()]
    named = bool((rows["published_as"] != "").any())
    lines = []
    for _, run in rows.groupby(RUN, sort=False, dropna=False):
        first: dict[Any, Any] = run.iloc[0].to_dict()
        arguments = first["method_arguments"]
        line = [f"{first['method']}({arguments})" if arguments else str(first["method"])]
        line += [str(first["published_as"])] if named else []
        scores = {(one["task"], one["metric"]): one["score"] for one in run.to_dict("records")}
        line += [f"{scores[task]:.1f}" if task in scores else ABSENT for task in tasks]
        line += [COSTS[cost][1](float(first[cost])) if first[cost] == first[cost] else ABSENT for cost in costs]
        lines.append(tuple(line))
    names = ["Method", *(["Published as"] if named else [])]
    several = len({task for task, _ in tasks}) < len(tasks)
    headings = [f"{task} {metric}" if several else task for task, metric in tasks]
    title = f"{model}, published in {source}" + (f", trained on {train_data}" if train_data else "")
    shown = (*names, *headings, *(COSTS[cost][0] for cost in costs))
    return Table(title, shown, len(names), tuple(lines), _metrics(tasks))


def _metrics(tasks: Sequence[tuple[str, str]]) -> str:
    """Return the metrics of the scores, as the source names them."""
    by_metric: dict[str, list[str]] = {}
    for task, metric in tasks:
        by_metric.setdefault(metric, []).append(task)
    return "; ".join(f"{metric}: {', '.join(names)}" for metric, names in by_metric.items()) + "."


def published_markdown(shown: Sequence[Table]) -> str:
    """Return the tables as a Markdown section; empty without tables."""
    if not shown:
        return ""
    return "\n" + "\n\n".join([f"## {HEADING}", REMARK, *map(table_markdown, shown)]) + "\n"


def published_csv(published: "pd.DataFrame") -> str:
    """Return all published rows as CSV, with the columns that at least one row fills."""
    filled = [name for name in published.columns if (published[name].notna() & (published[name] != "")).any()]
    return csv_text(published[filled])
