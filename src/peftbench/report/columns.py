"""The columns of a leaderboard, defined once for the terminal, Markdown and the page."""

from collections.abc import Callable
from dataclasses import dataclass

from peftbench.core.costs import COSTS, Cost, LeaderboardColumn
from peftbench.studies._pscp_weights import FORMS, REFERENCES, WeightSet
from peftbench.studies._text_format import ABSENT, UNTOLD, count_text, interval_text, interval_words, runs_text
from peftbench.studies.leaderboard import Leaderboard, LeaderboardRow

NOT_SHOWN = (
    f"“{UNTOLD}”: not shown to differ from at least one other method, which does not mean that they are equal; a "
    f"method without “{UNTOLD}” differs significantly from all others. Differences are over the same tasks and seeds, "
    "and tested at 5 % with Holm's correction for the number of pairs, so the intervals of two methods may be apart "
    "although the difference is not significant. Rows are sorted by mean. A better rank alone does not mean a better "
    "method: a method with a large spread over seeds is beaten by fewer."
)

AT_CHANCE = "°"
"""Marks the score of a task on which a run is at chance."""

ONE_SEED = "One seed: the intervals cover only the error over test rows, not the spread between seeds."


@dataclass(frozen=True)
class Column:
    """A column: its heading and meaning, and functions for a row's text, sort value and hint."""

    title: str
    meaning: str
    text: Callable[[LeaderboardRow], str]
    value: Callable[[LeaderboardRow], float | None]
    hint: Callable[[LeaderboardRow], str] = lambda _: ""


def columns(board: Leaderboard) -> list[Column]:
    """Return the columns of `board`: rank, mean, one per task, costs, PSCPs, without the method's name.

    Optional costs and PSCPs that no method has get no column.
    """
    rank = Column(
        "Rank",
        f"1 plus the number of methods that are significantly better. {NOT_SHOWN}",
        rank_text,
        lambda r: r.rank,
        _gaps,
    )
    mean = Column(
        "Mean",
        "Mean over the tasks' main metrics, on a scale of 0 to 100, with its 95 % interval over seeds and test rows, "
        "limited to the scale. Only methods with a score on every cell have a mean.",
        lambda r: interval_text(r.mean),
        lambda r: r.mean.mean if r.mean else None,
        lambda r: interval_words(r.mean) if r.mean else _gaps(r),
    )
    optional = [*COLUMNS, *((_pscp(weights), False) for weights in board.weights)]
    shown = [column for column, always in optional if always or any(map(_has(column), board.rows))]
    return [rank, mean, *(_task(task, metric) for task, metric in board.tasks.items()), *shown]


def board_cells(board: Leaderboard) -> list[list[str]]:
    """Return the headings, then the texts of each row: rank, method, and the other columns."""
    rank, *others = columns(board)
    heads = [rank.title, "Method", *(column.title for column in others)]
    return [heads, *([rank.text(row), row.method, *(each.text(row) for each in others)] for row in board.rows)]


def rank_text(row: LeaderboardRow) -> str:
    """Return the rank, with a mark if the method is not shown to differ from at least one other."""
    return ABSENT if row.rank is None else f"{row.rank}{UNTOLD if row.tied_with else ''}"


def _gaps(row: LeaderboardRow) -> str:
    return "; ".join(map(str, row.missing))


def _task(task: str, metric: str) -> Column:
    def score(row: LeaderboardRow) -> float | None:
        return row.scores[task].mean if task in row.scores else None

    meaning = f"{metric}, mean over the seeds, on a scale of 0 to 100."
    return Column(
        task,
        meaning,
        lambda r: _number(score(r)) + (AT_CHANCE if task in r.at_chance and task in r.scores else ""),
        score,
        lambda r: _task_hint(r, task),
    )


def _task_hint(row: LeaderboardRow, task: str) -> str:
    if task not in row.scores:
        return _gaps(row)
    count = row.at_chance.get(task, 0)
    return interval_words(row.scores[task]) + (f"; {runs_text(count)} at chance" if count else "")


def _number(value: float | None, form: str = ".1f") -> str:
    return ABSENT if value is None else format(value, form)


def _trainable(row: LeaderboardRow) -> str:
    trainable, total = row.costs["trainable_parameters"], row.costs["total_parameters"]
    if trainable is None:
        return ABSENT
    share = 100 * trainable / total if total else 0
    exact = f"{share:.0f}" if share > 9.5 else f"{share:.2g}" if share > 0.001 else "< 0.001"
    return count_text(trainable) + (f" ({exact} %)" if share else "")


def _cost(cost: Cost, shown: LeaderboardColumn) -> tuple[Column, bool]:
    def value(row: LeaderboardRow) -> float | None:
        held = row.costs[cost.name]
        return None if held is None else held / shown.divisor

    def text(row: LeaderboardRow) -> str:
        return _trainable(row) if cost.name == "trainable_parameters" else _number(value(row), shown.form)

    return Column(shown.heading, shown.meaning, text, value), shown.always


def _has(column: Column) -> Callable[[LeaderboardRow], bool]:
    return lambda row: column.value(row) is not None


def _pscp(weights: WeightSet) -> Column:
    name = weights.name
    terms = [
        f"{cost} (C = {'measured' if constant is None else f'{constant:g}'}, β = {exponent:g})"
        for cost, (constant, exponent) in weights.terms.items()
    ]
    measured = f" Measured constants are {REFERENCES[weights.reference]}." if weights.reference else ""
    meaning = (
        f"PEFT Soft Cost Penalties: the mean times {FORMS[weights.form]} for each of {', '.join(terms)}.{measured} "
        f"Weights “{name}” v{weights.version}; {weights.source}."
    )
    return Column(
        f"PSCP {name}",
        meaning,
        lambda r: _number(r.pscp[name].value),
        lambda r: r.pscp[name].value,
        lambda r: r.pscp[name].reason or "",
    )


COLUMNS = [
    _cost(cost, cost.column)
    for cost in sorted(COSTS.values(), key=lambda cost: cost.column.place if cost.column else 0)
    if cost.column
]
"""Costs, each with whether its column is shown even if no row has a value."""
