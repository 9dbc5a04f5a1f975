"""Commands for adding tasks and methods to peftbench: `new` and `check`."""

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

Name = Annotated[str, typer.Argument(help="name of the new task or method")]
To = Annotated[Path | None, typer.Option("--to", help="file to write; default: NAME.py in this folder", metavar="FILE")]


@new.command("task")
def new_task(name: Name, to: To = None) -> None:
    """Write a working template of a task, with every fact explained."""
    _written("task", name, to)


@new.command("method")
def new_method(name: Name, to: To = None) -> None:
    """Write a working template of a method."""
    _written("method", name, to)


@check.command("task")
def check_task(
    name: Annotated[str, typer.Argument(help="name of the task")],
    given: Annotated[
        list[str] | None, typer.Option("--set", help="an argument of the task; may be repeated", metavar="KEY=VALUE")
    ] = None,
    data: DataDir = None,
    plugin: Plugins = None,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="train the pocket model on the task, about a minute")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check a task's rows, answers, labels, leaks, lengths and whether it can be learned.

    Exit status 0: no problems; 1: problems found.
    """
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
    name: Annotated[str, typer.Argument(help="name of the method; for a type of peft: peft:TYPE")],
    given: Annotated[
        list[str] | None, typer.Option("--set", help="an argument of the method; may be repeated", metavar="KEY=VALUE")
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Check on two tiny models that a method keeps the contract of methods.

    Exit status 0: no problems; 1: problems found.
    """
    from peftbench.checks import method_check

    plug(plugin)
    said = None if as_json else lambda shape, finding: _say(finding, f"{shape:15}  ", 13)
    report = method_check.check_method(name, dict(map(pair, given or ())), said)
    _conclude(report.method, report, as_json)


def _written(kind: Any, name: str, to: Path | None) -> None:
    from peftbench.checks.scaffold import write_template

    path = write_template(kind, name, to)
    say(f"wrote {path}; use it with --plugin {path}")


def _say(finding: "Finding", on: str = "", width: int = 0) -> None:
    say(f"{'PROBLEM' if finding.problem else 'ok':7}  {on}{finding.about:{width}} {finding.said}")


def _conclude(name: str, report: Any, as_json: bool) -> None:
    """Print the number of problems, or the whole report as JSON. Exit status 1 if there are problems."""
    if as_json:
        print_json(asdict(report) | {"problems": report.problems})
    else:
        say(f"\n{name}: {report.problems or 'no'} problem{'' if report.problems == 1 else 's'}")
    if report.problems:
        raise typer.Exit(1)
