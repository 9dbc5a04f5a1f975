"""The leaderboard as files: Markdown, CSV and one page of HTML."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.report.sections import Evidence


def write(
    shown: "Evidence", context: Mapping[str, object], out: Path, published: "pd.DataFrame | None" = None
) -> list[Path]:
    """Write `leaderboard.md`, `leaderboard.csv` and `index.html` into the folder `out`; the same input, the same bytes.

    Published rows stand apart in the first and the last, and in `published.csv`.

    Args:
        shown: from `peftbench.report.sections.evidence`, with at least one leaderboard.
        context: `title` (text), and headings with a mapping of facts each, such as `machine` and `versions`.
        out: is made if absent; older files of these names are replaced.
        published: rows of `peftbench.evidence.frame`, if there are any.

    Raises:
        ValueError: there is no leaderboard.
    """
    from peftbench.report import published as others
    from peftbench.report.page import page
    from peftbench.report.tables import csv, markdown, section_markdown

    if not shown.boards:
        raise ValueError("there is no leaderboard to write: the table has no runs")
    sheets = others.sheets(published)
    texts = {
        "leaderboard.md": markdown(shown.boards)
        + "".join(map(section_markdown, shown.sections))
        + others.markdown(sheets),
        "leaderboard.csv": csv(shown.boards),
        "index.html": page(shown, context, sheets),
    }
    if published is not None and sheets:
        texts["published.csv"] = others.csv(published)
    out.mkdir(parents=True, exist_ok=True)
    if not sheets:
        (out / "published.csv").unlink(missing_ok=True)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    return [out / name for name in texts]
