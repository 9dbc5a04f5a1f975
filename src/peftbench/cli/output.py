"""How verbs print: tables and lines for people, JSON for programs, warnings on standard error."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from peftbench.core.safe_text import json_text, visible

if TYPE_CHECKING:
    from rich.console import Console


def console(stderr: bool = False) -> "Console":
    """Standard output, or standard error; markup and names of emoji are text like any other."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False)


def say(text: str, stderr: bool = False) -> None:
    """A text as it is, never folded."""
    console(stderr).print(visible(text, keep="\n"), highlight=False, soft_wrap=True)


def print_rows(headings: list[str], rows: list[list[str]]) -> None:
    """A table whose cells are not cut off."""
    from peftbench.report.terminal import print_table

    print_table(console(), headings, rows)


def print_json(content: Any) -> None:
    """One JSON document."""
    typer.echo(json_text(content))


def records(table: Any) -> list[dict[str, Any]]:
    """The rows of a `pandas.DataFrame`, in JSON's types."""
    return list(json.loads(table.to_json(orient="records")))


def warn_damaged(files: Mapping[Path, str]) -> None:
    """A line for each file that is not what was written."""
    for path, why in files.items():
        say(f"warning: {path}: {why}. What it holds counts as missing", stderr=True)
