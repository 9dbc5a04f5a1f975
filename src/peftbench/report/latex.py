"""Leaderboards as LaTeX tables, with the rules of the package `booktabs`."""

import re
from collections.abc import Sequence

from peftbench.core.text_escaping import visible
from peftbench.report.columns import board_cells
from peftbench.report.tables import board_remarks
from peftbench.studies import _run_conditions
from peftbench.studies.leaderboard import Leaderboard

SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "°": r"$^\circ$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "“": "``",
    "”": "''",
    "[": "{[}",
    "]": "{]}",
    "\n": " ",
}
"""Characters to escape in LaTeX; a bracket at the start of a row would be read as an argument of the previous row."""


def latex_escaped(text: str) -> str:
    return re.sub("|".join(map(re.escape, SIGNS)), lambda sign: SIGNS[sign[0]], visible(text, keep="\n"))


def latex(boards: Sequence[Leaderboard]) -> str:
    """Return a floating table per leaderboard with its remarks. Needs `booktabs` and, for `"`, T1 fonts."""
    head = "% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}."
    return "\n\n".join([head, *(_table(board) for board in boards)]) + "\n"


def _table(board: Leaderboard) -> str:
    cells = board_cells(board)
    lines = [" & ".join(map(latex_escaped, row)) + r" \\" for row in cells]
    parts = [r"\begin{table}", r"\centering", rf"\caption{{{latex_escaped(board.title)}}}"]
    parts += [rf"\begin{{tabular}}{{rl{'r' * (len(cells[0]) - 2)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    parts += [r"\bottomrule", r"\end{tabular}", r"\par\footnotesize"]
    made = _run_conditions.conditions_table(board)
    told = [
        f"{line[0]}: " + ", ".join(map(" ".join, zip(made.headings[1:], line[1:], strict=True))) for line in made.lines
    ]
    parts += [latex_escaped(remark) + r" \par" for remark in (*board_remarks(board), made.note, *told)]
    return "\n".join([*parts, r"\end{table}"])
