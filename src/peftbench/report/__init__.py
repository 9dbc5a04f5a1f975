"""The leaderboard as files: Markdown, CSV and one page of HTML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.analysis.leaderboard import Leaderboard
from peftbench.analysis.names import distinct

if TYPE_CHECKING:
    import pandas as pd


def write(
    leaderboards: Sequence[Leaderboard],
    table: "pd.DataFrame",
    curves: "pd.DataFrame",
    context: Mapping[str, object],
    out: Path,
) -> list[Path]:
    """Write `leaderboard.md`, `leaderboard.csv` and `index.html` into the folder `out`; the same input, the same bytes.

    Args:
        leaderboards: from `peftbench.analysis.leaderboard.leaderboards`; at least one.
        table: one row per run, of which the leaderboards were made.
        curves: one row per validation: id (of the run), step, tokens, seconds, train_loss, validation_loss.
        context: `title` (text), and headings with a mapping of facts each, such as `machine` and `versions`.
        out: is made if absent; older files of these names are replaced.

    Raises:
        ValueError: there is no leaderboard.
    """
    from peftbench.report.page import page
    from peftbench.report.tables import csv, markdown

    table = distinct(table)
    if not leaderboards:
        raise ValueError("there is no leaderboard to write: the table has no runs")
    texts = {
        "leaderboard.md": markdown(leaderboards),
        "leaderboard.csv": csv(leaderboards),
        "index.html": page(leaderboards, table, curves, context),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    return [out / name for name in texts]
