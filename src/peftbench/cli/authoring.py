"""Verbs for those who add to peftbench: `new` and `check`."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli.options import AsJson, DataDir, Plugins, pair, plug
from peftbench.cli.output import print_json, say

if TYPE_CHECKING:
    from peftbench.checks.static_checks import Finding

new = typer.Typer(help="Write a template for a task or a method.", no_args_is_help=True, rich_markup_mode=None)
check = typer.Typer(help="Check a task or a method of your own.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="what it is to be called")]
To = Annotated[Path | None, typer.Option("--to", help="the file; default: NAME.py here", metavar="FILE")]


@new.command("task")
def new_task(name: Name, to: To = None) -> None:
    """Write a task that works as it stands, with every fact explained."""
    _written("task", name, to)


@new.command("method")
def new_method(name: Name, to: To = None) -> None:
    """Write a method that works as it stands."""
    _written("method", name, to)


@check.command("task")
def check_task(
    name: Annotated[str, typer.Argument(help="the task")],
    given: Annotated[
        list[str] | None, typer.Option("--set", help="an argument of the task; may be repeated", metavar="KEY=VALUE")
    ] = None,
    data: DataDir = None,
    plugin: Plugins = None,
    train: Annotated[bool, typer.Option("--train/--no-train", help="train the pocket model on it for a minute")] = True,
    as_json: AsJson = False,
) -> None:
    """Rows, answers, labels, leaks, lengths, and whether it is learned. Exit status 0: fine; 1: problems found."""
    from peftbench import checks

    plug(plugin)
    said = None if as_json else partial(_say, width=9)
    report = checks.check_task(name, dict(map(pair, given or ())), data, train, said)
    if not as_json:
        for row in report.shown:
            say(f"\n{row['prompt']}\n-> {row['target']}")
    _conclude(report.task, report, as_json)


@check.command("method")
def check_method(
    name: Annotated[str, typer.Argument(help="the method; a type of peft is peft:TYPE")],
    given: Annotated[
        list[str] | None, typer.Option("--set", help="an argument of the method; may be repeated", metavar="KEY=VALUE")
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Whether it keeps the contract of methods, on two tiny models. Exit status 0: fine; 1: problems found."""
    from peftbench.checks import method_check

    plug(plugin)
    said = None if as_json else lambda shape, finding: _say(finding, f"{shape:15}  ", 13)
    report = method_check.check_method(name, dict(map(pair, given or ())), said)
    _conclude(report.method, report, as_json)


def _written(kind: Any, name: str, to: Path | None) -> None:
    from peftbench.checks.scaffold import write_template

    path = write_template(kind, name, to)
    say(f"wrote {path}; it works at once with --plugin {path}")


def _say(finding: "Finding", on: str = "", width: int = 0) -> None:
    say(f"{'PROBLEM' if finding.problem else 'ok':7}  {on}{finding.about:{width}} {finding.said}")


def _conclude(name: str, report: Any, as_json: bool) -> None:
    """The number of problems, or all that was found as JSON; exit status 1 where there are any."""
    if as_json:
        print_json(asdict(report) | {"problems": report.problems})
    else:
        say(f"\n{name}: {report.problems or 'no'} problem{'' if report.problems == 1 else 's'}")
    if report.problems:
        raise typer.Exit(1)
