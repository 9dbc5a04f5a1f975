"""How the runs of each method were made: settings, rows, precision, workers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftbench.studies._text_format import ABSENT, seeds_text
from peftbench.studies.report_blocks import Table

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.studies.leaderboard import Leaderboard

FACTS = (
    *("learning_rate", "epochs", "steps", "batch_size", "accumulation", "train_rows", "validation_rows", "test_rows"),
    *("truncated_share", "precision", "workers"),
)
"""What is told of the runs of a method. `steps` are those that were done; `workers` ran beside each other."""
Conditions = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""By method and fact: the values that its runs had, in order; none of a fact that is not known or does not apply."""


def conditions(runs: "pd.DataFrame") -> Conditions:
    """The conditions of the runs of each method, `label` in the table; what a table does not hold is not known."""
    runs = with_shares(runs).reindex(columns=["label", "trainable_parameters", *FACTS])
    # What trains nothing has settings all the same, which nobody asked for.
    idle = runs["trainable_parameters"] == 0
    runs.loc[idle, ["learning_rate", "epochs", "steps", "batch_size", "accumulation"]] = None
    return {
        str(label): {fact: tuple(sorted(map(_whole, own[fact].dropna().unique().tolist()))) for fact in FACTS}
        for label, own in runs.groupby("label")
    }


def _whole(value: Any) -> Any:
    """A count as a whole number, whatever a column with gaps makes of it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_shares(runs: "pd.DataFrame") -> "pd.DataFrame":
    """The runs with the share of their rows that were cut to the longest text allowed."""
    counts = ["truncated_rows", "train_rows", "validation_rows", "test_rows"]
    cut, *rows = (runs.reindex(columns=counts)[name].astype(float) for name in counts)
    return runs.assign(truncated_share=cut / sum(rows))


def fewer(runs: "pd.DataFrame") -> dict[str, int]:
    """By task: how many training rows there were, where that is fewer than were asked for."""
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
"""What the conditions of runs are called."""
TITLE = "What was run"
MANY_CUT = 0.05
"""The share of truncated rows from which on a reader has to be warned."""


def conditions_table(board: "Leaderboard") -> Table:
    """A line for each method with what differs between them; what does not differ stands in the note."""
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
    """Training sets smaller than asked for, and methods many of whose rows were cut."""
    said = []
    if board.fewer:
        rows = ", ".join(f"{task} has {count:,}" for task, count in board.fewer.items())
        said.append(f"Fewer training rows than the {int(board.size):,} that were asked for: {rows}.")
    shares = [max(of["truncated_share"], default=0.0) for of in board.conditions.values()]
    if max(shares, default=0.0) >= MANY_CUT:
        said.append(
            f"Up to {100 * max(shares):.0f} % of the rows of a run were cut to max_length: their ends were not read."
        )
    return said


def _shared(held: Conditions, fact: str) -> tuple[Any, ...]:
    """The values that all methods have of a fact that apply to them; none where some differ."""
    known = {of[fact] for of in held.values() if of[fact]}
    return known.pop() if len(known) == 1 else ()


def _text(fact: str, values: Sequence[Any]) -> str:
    """`0.005`; `0.001 to 0.005` of several numbers."""
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
    """How a single run was made, from its row of a table, as a listing shows it."""
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
