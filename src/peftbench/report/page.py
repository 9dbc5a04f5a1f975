"""The leaderboards as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftbench.report import figures
from peftbench.report.columns import columns
from peftbench.report.published_tables import HEADING, REMARK
from peftbench.report.tables import board_remarks, failures
from peftbench.report.template import render
from peftbench.stats.intervals import Interval
from peftbench.studies import _run_conditions, pscp_sensitivity
from peftbench.studies._leaderboard_figures import learning_curves, score_cost
from peftbench.studies._run_labels import method_labels
from peftbench.studies._text_format import interval_words
from peftbench.studies.leaderboard import Leaderboard
from peftbench.studies.presentation_blocks import Table
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd


def leaderboard_page(data: RunData, context: Mapping[str, object], sheets: Sequence[Table] = ()) -> str:
    """Return the page; `sheets` are published tables. All text is escaped, also in figures; figures load nothing."""
    table, boards = data.table, data.leaderboards
    views = [_view(f"b{i}", board, data) for i, board in enumerate(boards)]
    return render(
        "page.html.j2",
        title=context.get("title", "PEFT leaderboard"),
        facts=[
            *([("What was run", _what_was_run(table))] if len(table) else []),
            *((k, v) for k, v in context.items() if isinstance(v, Mapping)),
        ],
        boards=views,
        meanings={c.title: c.meaning for board in boards for c in columns(board) if c.title not in board.tasks},
        about_sensitivity=pscp_sensitivity.ABOUT,
        sections=data.sections,
        runs=len(table),
        svg=figures.page_svg,
        has_figures=any(view["score_cost"] or view["curves"] or view["sensitivity"] for view in views)
        or any(section.figures for section in data.sections),
        config=figures.config(*figures.PAGE),
        runtime=figures.runtime,
        failures=failures(table),
        published={"heading": HEADING, "remark": REMARK, "sheets": sheets},
    )


def _what_was_run(table: "pd.DataFrame") -> dict[str, str]:
    def named(column: "pd.Series[Any]") -> str:
        return ", ".join(sorted(set(column.astype(str))))

    statuses = table["status"].value_counts()
    return {
        "Runs": ", ".join(f"{count} {status}" for status, count in statuses.items()),
        "Models": named(table["model"]),
        "Methods": named(method_labels(table)),
        "Tasks": named(table["task"]),
        "Training rows": named(table["size"]),
        "Seeds": named(table["seed"]),
        "Machine classes": named(table["machine_class"]),
    }


def _view(name: str, board: Leaderboard, data: RunData) -> dict[str, object]:
    """Return the values of a leaderboard for the template."""
    looks = data.styles
    shown = columns(board)
    lines = [(row, [(c.text(row), c.value(row), c.hint(row)) for c in shown]) for row in board.rows]
    bars = {"Mean of all tasks": [(row, row.mean) for row in board.rows]}
    bars |= {task: [(row, row.scores.get(task)) for row in board.rows] for task in board.tasks}
    return {
        "name": name,
        "title": board.title,
        "board": board,
        "columns": shown,
        "lines": lines,
        "remarks": board_remarks(board),
        "made": _run_conditions.conditions_table(board),
        "bars": {heading: [(row.method, _bar(score)) for row, score in held] for heading, held in bars.items()},
        "score_cost": score_cost(board, looks),
        "sensitivity": pscp_sensitivity.sensitivity_figures(board, looks),
        "leaders": pscp_sensitivity.sensitivity_rows(board),
        "curves": learning_curves(board, data.compared, data.curves, looks),
    }


def _bar(score: Interval | None) -> dict[str, object] | None:
    """Return the end of a bar and, if known, of its interval, in percent of the width (the scale of 0 to 100)."""
    if score is None:
        return None
    bar: dict[str, object] = {"mean": _percent(score.mean), "text": f"{score.mean:.1f}", "hint": interval_words(score)}
    if score.low is None or score.high is None:
        return bar | {"low": None}
    return bar | {"low": _percent(score.low), "width": _percent(score.high) - _percent(score.low)}


def _percent(score: float) -> float:
    return min(max(score, 0.0), 100.0)
