"""The command `gate`, for continuous integration."""

import tomllib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli.options import (
    AsJson,
    DataDir,
    Plugins,
    StoreDir,
    Threads,
    Timeout,
    Workers,
    pair,
    size_of,
)
from peftbench.cli.output import console, print_json, say
from peftbench.cli.run_with_progress import stopped_by_signal
from peftbench.core.registry import UserError

if TYPE_CHECKING:
    from peftbench.studies.presentation_blocks import Section

RESULTS = Path("results/gate")
"""Default store. It is separate because the gate replaces results of another version of the code."""

ENTRY = "NAME|TOML"


def gate(
    candidate: Annotated[
        str | None,
        typer.Argument(help="a method, or a grid entry: '{ use = \"lora\", rank = 8 }'", metavar=f"[{ENTRY}]"),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="instead of a method: folder of a trained adapter or model", metavar="DIR")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="method to compare with; default: LoRA as in docs/gate.md", metavar=ENTRY)
    ] = None,
    model: Annotated[str, typer.Option(help="the base model", metavar=ENTRY)] = "pocket",
    tasks: Annotated[
        str | None,
        typer.Option(help="tasks or suites, separated by commas; default: two pocket tasks", metavar="A,B"),
    ] = None,
    size: Annotated[str, typer.Option(help="number of training rows, or all")] = "256",
    seeds: Annotated[int, typer.Option(min=2, help="number of seeds, counted from 0")] = 5,
    margin: Annotated[float, typer.Option(help="non-inferiority margin in points")] = 3.0,
    train: Annotated[
        list[str] | None, typer.Option(help="a setting of [train]; may be repeated", metavar="KEY=VALUE")
    ] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval", help="a setting of [eval]; may be repeated", metavar="KEY=VALUE")
    ] = None,
    plugin: Plugins = None,
    store: StoreDir = RESULTS,
    data: DataDir = None,
    workers: Workers = 0,
    threads: Threads = 1,
    timeout: Timeout = None,
    again: Annotated[bool, typer.Option("--again", help="rerun the candidate even if the store has its runs")] = False,
    summary: Annotated[Path | None, typer.Option(help="append a Markdown summary to this file", metavar="FILE")] = None,
    junit: Annotated[Path | None, typer.Option(help="write JUnit XML to this file", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Test that a method is no worse than a baseline.

    The candidate may also be a trained adapter. Meant for continuous integration.

    Exit status 0: no worse; 1: worse; 2: no verdict, because the gate cannot tell or the command failed.
    """
    from peftbench import gate as compare
    from peftbench.gating.presentation import gate_section
    from peftbench.gating.presentation import junit as junit_xml

    with _no_verdict(), stopped_by_signal():
        if (candidate is None) == (adapter is None):
            raise UserError("the candidate is not clear: give either a method or --adapter DIR")
        verdict = compare(
            adapter or parse_entry(str(candidate)),
            parse_entry(baseline) if baseline else None,
            model=parse_entry(model),
            tasks=_tasks(tasks) if tasks else (),
            size=size_of(size),
            seeds=seeds,
            margin=margin,
            train=dict(pair(one, "--train") for one in train or ()),
            eval=dict(pair(one, "--eval") for one in evaluation or ()),
            store=store,
            data=data,
            plugins=plugin or (),
            workers=workers,
            threads=threads,
            timeout=timeout,
            again=again,
            progress=True,
        )
        section = gate_section(verdict)
        if summary:
            _add(summary, section)
        if junit:
            _write(junit, junit_xml(verdict))
        _print(section, as_json)
    raise typer.Exit(verdict.exit_code)


@contextmanager
def _no_verdict() -> Iterator[None]:
    """Exit with status 2 after an unexpected error: Python's own status, 1, would read as the verdict "worse"."""
    try:
        yield
    except (UserError, typer.Exit):
        raise
    except Exception:
        say(f"{traceback.format_exc()}error: no verdict: the gate itself failed", stderr=True)
        raise typer.Exit(2) from None


def parse_entry(text: str) -> Any:
    """A name, or the grid entry that a text in braces stands for. Raises `UserError` for invalid TOML."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return tomllib.loads(f"entry = {text}")["entry"]
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{text} is not valid TOML: {error}") from None


def _tasks(text: str) -> tuple[Any, ...]:
    found = parse_entry(text)
    return (found,) if isinstance(found, dict) else tuple(name for name in text.split(",") if name)


def _print(section: "Section", as_json: bool) -> None:
    from peftbench.report.terminal import print_section

    if as_json:
        print_json(section.data)
        return
    print_section(console(), section)
    say(section.about)


def _add(path: Path, section: "Section") -> None:
    """Append the summary, because the file may hold summaries of other steps."""
    from peftbench.report.tables import section_markdown

    with _writable(path), path.open("a", encoding="utf-8") as out:
        out.write(section_markdown(section))


def _write(path: Path, text: str) -> None:
    with _writable(path):
        path.write_text(text, encoding="utf-8")


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
