"""How commands print: tables and lines for people, JSON for programs, warnings on standard error."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from peftbench.core.text_escaping import json_text, visible

if TYPE_CHECKING:
    from rich.console import Console


def console(stderr: bool = False) -> "Console":
    """A console on standard output or standard error. Markup and emoji names are printed as plain text."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False)


def say(text: str, stderr: bool = False) -> None:
    """Print a text unchanged, without wrapping lines."""
    console(stderr).print(visible(text, keep="\n"), highlight=False, soft_wrap=True)


def print_rows(headings: list[str], rows: list[list[str]]) -> None:
    """Print a table without cutting its cells."""
    from peftbench.report.terminal import print_table

    print_table(console(), headings, rows)


def print_json(content: Any) -> None:
    """Print one JSON document."""
    typer.echo(json_text(content))


def records(table: Any) -> list[dict[str, Any]]:
    """The rows of a `pandas.DataFrame` as mappings with JSON types."""
    return list(json.loads(table.to_json(orient="records")))


def warn_damaged(files: Mapping[Path, str]) -> None:
    """Print a warning for each damaged file."""
    for path, why in files.items():
        say(f"warning: {path}: {why}. Its content counts as missing", stderr=True)


@contextmanager
def spoken_warnings() -> Iterator[None]:
    """Print Python's warnings as lines on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_args, **_more: say(f"warning: {message}", stderr=True)
        yield
