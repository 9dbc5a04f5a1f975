"""Conditions of the runs of each method: settings, rows, precision, workers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftbench.studies._text_format import ABSENT, seeds_text
from peftbench.studies.presentation_blocks import Table

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.studies.leaderboard import Leaderboard

FACTS = (
    *("learning_rate", "epochs", "steps", "batch_size", "accumulation", "train_rows", "validation_rows", "test_rows"),
    *("truncated_share", "precision", "workers"),
)
"""Conditions that are reported for a method. `steps` were completed; `workers` is the number of parallel workers."""
Conditions = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""Method to fact to the sorted distinct values of its runs; empty if the fact is unknown or does not apply."""


def conditions(runs: "pd.DataFrame") -> Conditions:
    """Return the conditions of the runs of each method (column `label`); columns that are missing count as unknown."""
    runs = with_shares(runs).reindex(columns=["label", "trainable_parameters", *FACTS])
    # Methods that train nothing still record training settings, which have no effect.
    idle = runs["trainable_parameters"] == 0
    runs.loc[idle, ["learning_rate", "epochs", "steps", "batch_size", "accumulation"]] = None
    return {
        str(label): {fact: tuple(sorted(map(_whole, own[fact].dropna().unique().tolist()))) for fact in FACTS}
        for label, own in runs.groupby("label")
    }


def _whole(value: Any) -> Any:
    """Return counts as integers; pandas stores them as floats in a column with missing values."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_shares(runs: "pd.DataFrame") -> "pd.DataFrame":
    """Return the runs with a column `truncated_share`: the share of their rows that were cut to `max_length`."""
    counts = ["truncated_rows", "train_rows", "validation_rows", "test_rows"]
    cut, *rows = (runs.reindex(columns=counts)[name].astype(float) for name in counts)
    return runs.assign(truncated_share=cut / sum(rows))


def fewer(runs: "pd.DataFrame") -> dict[str, int]:
    """Return the number of training rows by task, for tasks with fewer rows than requested."""
    held = runs.reindex(columns=["task", "size", "train_rows"]).dropna()
    held = held[held["size"].astype(str) != "all"]
    short = held[held["train_rows"].astype(float) < held["size"].astype(float)]
    return {str(task): int(own["train_rows"].min()) for task, own in short.groupby("task")}


# Presentation

NAMES = {
    "learning_rate": "Learning rate",
    "epochs": "Epochs",
    "steps": "Steps",
    "batch_size": "Batch",
    "accumulation": "Accumulated",
    "train_rows": "Training rows",
    "validation_rows": "Validation rows",
    "test_rows": "Test rows",
    "truncated_share": "Truncated",
    "precision": "Precision",
    "workers": "Workers",
}
"""Display names of the conditions."""
TITLE = "What was run"
MANY_CUT = 0.05
"""The share of truncated rows from which a warning is shown."""


def conditions_table(board: "Leaderboard") -> Table:
    """Return a table with a line per method: conditions that differ are columns, shared ones are in the note."""
    held = board.conditions
    apart = [fact for fact in NAMES if not _shared(held, fact) and any(of[fact] for of in held.values())]
    lines = [(row.method, *(_text(fact, held[row.method][fact]) for fact in apart)) for row in board.rows]
    return Table(TITLE, ("Method", *(NAMES[fact] for fact in apart)), 1, tuple(lines) if apart else (), _note(board))


def _note(board: "Leaderboard") -> str:
    held = board.conditions
    shared = {fact: values for fact in NAMES if (values := _shared(held, fact))}
    if shared.get("accumulation") == (1,):
        shared.pop("accumulation")
    told = [f"{NAMES[fact].lower()} {_text(fact, values)}" for fact, values in shared.items()]
    return f"All methods: {', '.join([*told, seeds_text(board.seeds)])}."


def condition_remarks(board: "Leaderboard") -> list[str]:
    """Return remarks on smaller training sets than requested, many truncated rows, and runs of unequal precision."""
    said = []
    if board.fewer:
        rows = ", ".join(f"{task} has {count:,}" for task, count in board.fewer.items())
        said.append(f"Fewer training rows than the {int(board.size):,} requested: {rows}.")
    shares = [max(of["truncated_share"], default=0.0) for of in board.conditions.values()]
    if max(shares, default=0.0) >= MANY_CUT:
        said.append(f"Up to {100 * max(shares):.0f} % of the rows of a run were truncated to max_length.")
    precisions = sorted({value for of in board.conditions.values() for value in of["precision"]})
    if len(precisions) > 1:
        said.append(
            f"The runs differ in precision ({', '.join(precisions)}), so their times and memory are not comparable. "
            "Set precision under [train] to have one."
        )
    return said


def _shared(held: Conditions, fact: str) -> tuple[Any, ...]:
    """Return the values of a fact if all methods to which it applies have the same ones, else an empty tuple."""
    known = {of[fact] for of in held.values() if of[fact]}
    return known.pop() if len(known) == 1 else ()


def _text(fact: str, values: Sequence[Any]) -> str:
    """Format values: `0.005` for one number, `0.001 to 0.005` for several."""
    if not values:
        return ABSENT
    texts = list(dict.fromkeys(_number(fact, value) for value in values))
    if isinstance(values[0], str):
        return ", ".join(texts)
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def _number(fact: str, value: Any) -> str:
    if fact == "truncated_share":
        return f"{100 * value:.1f} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"
    return value if isinstance(value, str) else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def run_conditions_text(run: Mapping[str, Any]) -> str:
    """Return the conditions of one run, from its row of the table, as a listing shows them."""
    forms = {
        "learning_rate": "lr {:g}",
        "epochs": "{:g} epochs",
        "steps": "{:.0f} steps",
        "batch_size": "batch {:.0f}",
        "train_rows": "{:,.0f} rows",
        "test_rows": "{:,.0f} tested",
        "precision": "{}",
    }
    if not run["steps"] or run["steps"] != run["steps"]:
        for fact in ("learning_rate", "epochs", "batch_size"):
            forms.pop(fact)
    known = {fact: run[fact] for fact in forms if run[fact] is not None and run[fact] == run[fact]}
    times = run["accumulation"]
    return ", ".join(
        forms[fact].format(value) + (f" × {times:.0f}" if fact == "batch_size" and times > 1 else "")
        for fact, value in known.items()
    )
