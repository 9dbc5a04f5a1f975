"""The leaderboard as files: Markdown, CSV and one page of HTML."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.studies.study_input import RunData


def write_report(
    data: "RunData", context: Mapping[str, object], out: Path, published: "pd.DataFrame | None" = None
) -> list[Path]:
    """Write `leaderboard.md`, `leaderboard.csv` and `index.html` to the folder `out`; equal input gives equal files.

    Published rows are shown separately in `leaderboard.md` and `index.html`, and in `published.csv`. Without a
    leaderboard, for example with published rows only, `leaderboard.csv` is not written.

    Args:
        data: from `peftbench.studies.study_input.run_data`.
        context: `title` (text), and headings, such as `machine` and `versions`, each with a mapping of facts.
        out: created if absent; existing files of these names are replaced, or removed if there is nothing to write.
        published: rows of `peftbench.results.published.published_frame`, if there are any.

    Raises:
        ValueError: there are no runs and no published rows.
    """
    from peftbench.report import published_tables as others
    from peftbench.report.page import leaderboard_page
    from peftbench.report.tables import leaderboards_csv, leaderboards_markdown, section_markdown

    sheets = others.published_tables(published)
    if data.table.empty and not sheets:
        raise ValueError("there is nothing to report: no runs and no published rows")
    sections = "".join(map(section_markdown, data.sections))
    texts = {
        "leaderboard.md": (
            leaderboards_markdown(data.leaderboards) + sections + others.published_markdown(sheets)
        ).lstrip("\n"),
        "leaderboard.csv": leaderboards_csv(data.leaderboards) if data.leaderboards else None,
        "index.html": leaderboard_page(data, context, sheets),
        "published.csv": others.published_csv(published) if published is not None and sheets else None,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if text is None:
            (out / name).unlink(missing_ok=True)
        else:
            (out / name).write_text(text, encoding="utf-8", newline="\n")
    return [out / name for name, text in texts.items() if text is not None]
