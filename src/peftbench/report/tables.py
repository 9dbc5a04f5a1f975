"""Leaderboards as Markdown and CSV."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftbench.core.search_space import INCOMPARABLE
from peftbench.core.text_escaping import csv_cell, visible
from peftbench.report.columns import AT_CHANCE, NOT_SHOWN, ONE_SEED, board_cells
from peftbench.studies import _run_conditions, pscp_sensitivity
from peftbench.studies._run_labels import method_labels
from peftbench.studies._text_format import lacking_text, missing_cells_text, runs_text
from peftbench.studies.leaderboard import Leaderboard
from peftbench.studies.presentation_blocks import Section, Table

if TYPE_CHECKING:
    import pandas as pd


def board_remarks(board: Leaderboard) -> list[str]:
    """Return the remarks under a leaderboard: methods not shown to differ, seeds, missing cells with reasons."""
    said = [NOT_SHOWN, *_to_show(board), *_run_conditions.condition_remarks(board)]
    if len(board.seeds) == 1:
        said.append(ONE_SEED)
    said += _at_chance(board)
    if max(board.trials.values()) > 1:
        said.append(_trials(board))
    said += _not_chosen(board)
    if board.costs_refused:
        said.append(f"Costs are not compared: {board.costs_refused}.")
    said += [f"No method has a score on {cells}" for cells in missing_cells_text(board.unscored)]
    said += lacking_text((row.method, row.missing) for row in board.rows)
    if board.weights:
        said.append(f"Weights of PSCP: {', '.join(map(str, board.weights))}.")
    return said + _without_pscp(board)


def _to_show(board: Leaderboard) -> list[str]:
    """Return remarks on the requirements to detect the observed differences to the first method."""
    held = {(c.first, c.second): c.difference.mean for c in board.comparisons}
    needed: list[str] = []
    unknown: dict[str, list[str]] = {}
    leader = board.rows[0].method if board.rows else ""
    for method, found in board.to_show.items():
        gap = held[leader, method] if (leader, method) in held else -held[method, leader]
        if isinstance(found, str):
            unknown.setdefault(found, []).append(method)
        else:
            needed.append(f"{method} ({gap:.1f} points: {found.text})")
    said = []
    if needed:
        said.append(
            f"Not shown to differ from {leader}, with what would show the observed difference "
            f"(80 % of the time, among all {len(board.comparisons)} pairs): {', '.join(needed)}."
        )
    said += [
        f"Not shown to differ from {leader}; what would show it is not known, because {why}: {', '.join(methods)}."
        for why, methods in unknown.items()
    ]
    return said


def _at_chance(board: Leaderboard) -> list[str]:
    """Return the meaning of the chance mark and the runs that it applies to."""
    held = [(row.method, row.at_chance) for row in board.rows if row.at_chance]
    if not held:
        return []
    named = (f"{method} ({', '.join(f'{task} {runs_text(n)}' for task, n in tasks.items())})" for method, tasks in held)
    meaning = "not shown to be better than the best constant answer (one-sided, 95 %)"
    return [f"“{AT_CHANCE}” marks a task with runs at chance, {meaning}: {'; '.join(named)}."]


def _trials(board: Leaderboard) -> str:
    """Return a remark on the number of settings tried per method that trains."""
    idle = {row.method for row in board.rows if row.costs["trainable_parameters"] == 0}
    trials = {method: count for method, count in board.trials.items() if method not in idle}
    counts = sorted(set(trials.values()))
    chosen = "Training settings were chosen by validation loss, from "
    if len(counts) == 1:
        return f"{chosen}{counts[0]} for each method."
    each = ", ".join(f"{count} for {method}" for method, count in sorted(trials.items()))
    return f"{chosen}unequal numbers: {each}."


def _not_chosen(board: Leaderboard) -> list[str]:
    """Return remarks on settings with separate rows, among which validation loss cannot choose."""
    found = [name for name in INCOMPARABLE if any(f"[{name}=" in row.method for row in board.rows)]
    return [
        f"Rows with different {name} are shown separately and none is chosen: {INCOMPARABLE[name]}." for name in found
    ]


def _without_pscp(board: Leaderboard) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in board.rows:
        for weights, score in row.pscp.items():
            if score.reason and not row.missing and not board.costs_refused:
                reasons.setdefault(f"No PSCP ({weights}): {score.reason}", []).append(row.method)
    everyone = sum(not row.missing for row in board.rows)
    return [
        f"{reason} ({', '.join(methods) if len(methods) < everyone else 'all methods'})"
        for reason, methods in reasons.items()
    ]


def failures(table: "pd.DataFrame") -> list[str]:
    """Return a line per run without a score, except pruned ones, with its status and the first line of its error."""
    named = table.assign(label=method_labels(table))
    lost = ~named["status"].isin(["ok", "pruned"]) | ((named["status"] == "ok") & named["score"].isna())
    lines = []
    for row in named[lost].to_dict("records"):
        error = row["error"].strip().partition("\n")[0] if isinstance(row["error"], str) else "no message"
        number = row.get("trial")
        trial = "" if number is None or number != number else f" (trial {number + 1:.0f})"
        where = f"{row['task']}, {row['model']}, {row['size']} rows, seed {row['seed']}{trial}, {row['machine_class']}"
        status = "no score" if row["status"] == "ok" else row["status"]
        lines.append(f"{row['label']} on {where}: {status} ({error})")
    return lines


def leaderboards_markdown(boards: Sequence[Leaderboard]) -> str:
    """Return the leaderboards as Markdown tables, each with its remarks."""
    return "\n\n".join(_section(board) for board in boards) + "\n"


def _section(board: Leaderboard) -> str:
    heads, *rows = board_cells(board)
    cells = [heads, ["---:", "---", *("---:" for _ in heads[2:])], *rows]
    notes = [f"- {markdown_escaped(remark)}" for remark in board_remarks(board)]
    moved = [["PSCP", "Exponent", "Highest"], ["---"] * 3, *pscp_sensitivity.sensitivity_rows(board)]
    below = ["", pscp_sensitivity.ABOUT, "", *map(_line, moved)] if board.sensitivity else []
    made = table_markdown(_run_conditions.conditions_table(board))
    return "\n".join([f"## {markdown_escaped(board.title)}", "", *map(_line, cells), "", *notes, "", made, *below])


def table_markdown(sheet: Table) -> str:
    """Return a table as Markdown, with its title and note."""
    rules = ["---" if i < sheet.names else "---:" for i in range(len(sheet.headings))]
    lines = ["| " + " | ".join(rules) + " |", *map(_line, sheet.lines)]
    heading = [f"### {markdown_escaped(sheet.title)}"] if sheet.title else []
    parts = [*heading, *(["\n".join([_line(sheet.headings), *lines])] if sheet.lines else [])]
    return "\n\n".join(parts + ([f"- {markdown_escaped(sheet.note)}"] if sheet.note else []))


def section_markdown(section: Section) -> str:
    """Return a section as Markdown, without its figures."""
    remarks = "\n".join(f"- {markdown_escaped(remark)}" for remark in section.remarks)
    parts = [
        f"## {markdown_escaped(section.title)}",
        markdown_escaped(section.about),
        *map(table_markdown, section.sheets),
        remarks,
    ]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_escaped, cells))} |"


def markdown_escaped(text: str) -> str:
    """Return `text` escaped for a Markdown table: no cell border, HTML or emphasis."""
    text = visible(text.replace("\n", " "))
    for sign in "\\|`*_[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("<", "&lt;")


def leaderboards_csv(boards: Sequence[Leaderboard]) -> str:
    """Return the leaderboards as one unrounded CSV of `Leaderboard.to_frame`."""
    import pandas as pd

    return csv_text(pd.concat([board.to_frame() for board in boards], ignore_index=True))


def csv_text(table: "pd.DataFrame") -> str:
    """Return a table as CSV; text that a spreadsheet would run as a formula is prefixed with `'`."""
    text: str = table.rename(columns=csv_cell).map(csv_cell).to_csv(index=False)
    return text
