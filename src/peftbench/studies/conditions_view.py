"""What was run: what all methods of a leaderboard have in common, in a line; what they have not, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from peftbench.report.columns import ABSENT, seeds_text
from peftbench.studies.conditions import Conditions
from peftbench.studies.leaderboard import Leaderboard
from peftbench.studies.report_data import Sheet

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


def sheet(board: Leaderboard) -> Sheet:
    """A line for each method with what differs between them; what does not differ stands in the note."""
    held = board.conditions
    apart = [fact for fact in NAMES if not _shared(held, fact) and any(of[fact] for of in held.values())]
    lines = [(row.method, *(_text(fact, held[row.method][fact]) for fact in apart)) for row in board.rows]
    return Sheet(TITLE, ("Method", *(NAMES[fact] for fact in apart)), 1, tuple(lines) if apart else (), _note(board))


def _note(board: Leaderboard) -> str:
    held = board.conditions
    shared = {fact: values for fact in NAMES if (values := _shared(held, fact))}
    if shared.get("accumulation") == (1,):
        shared.pop("accumulation")
    told = [f"{NAMES[fact].lower()} {_text(fact, values)}" for fact, values in shared.items()]
    return f"All methods: {', '.join([*told, seeds_text(board.seeds)])}."


def remarks(board: Leaderboard) -> list[str]:
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


def in_a_line(run: Mapping[str, Any]) -> str:
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
