"""Commands about reproduction: the environment that a result depends on, and whether a run repeats exactly."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli.options import RESULTS, AsJson, DataDir, Plugins, StoreDir
from peftbench.cli.output import print_json, print_rows, say

if TYPE_CHECKING:
    from peftbench.results.run_diff import FieldDiff, RunDiff


def env(as_json: AsJson = False) -> None:
    """Show machine, versions, code and optional packages.

    Paste it into a bug report.
    """
    from peftbench.core.environment_report import extras, installation_facts

    found, optional = installation_facts(), extras()
    if as_json:
        print_json(found | {"optional": {extra.name: asdict(extra) for extra in optional}})
        return
    for part, facts in found.items():
        print_rows([part, ""], [[name, _text(value)] for name, value in facts.items()])
        say("")
    say("settings are those of this process; the workers of `run` have the number of threads given by --threads\n")
    print_rows(
        ["optional", "needed for", "usable", ""],
        [[extra.name, extra.purpose, "yes" if extra.available else "no", extra.detail] for extra in optional],
    )


def reproduce(
    run: Annotated[str, typer.Argument(help="the start of a run's id; `peftbench list runs` shows the ids")],
    store: StoreDir = RESULTS,
    data: DataDir = None,
    plugin: Plugins = None,
    keep: Annotated[
        Path | None, typer.Option(help="keep the new run in this folder of results; default: not kept", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Repeat a run and compare the results.

    Exit status 1: the results are not the same; 2: the run cannot be done here.
    """
    from peftbench import reproduce as run_again
    from peftbench.launch import signal_exit_status

    try:
        found = run_again(run, store, data=data, plugins=plugin or (), keep=keep, progress=True)
    except KeyboardInterrupt as stop:
        say("stopped before there was anything to compare", stderr=True)
        raise typer.Exit(signal_exit_status(stop)) from None
    if as_json:
        print_json({"id": found.id, "same": found.same} | asdict(found))
    else:
        _tell(found)
    if not found.same:
        raise typer.Exit(1)


def _tell(found: "RunDiff") -> None:
    """Print the comparison for people, with the environment only if the results differ."""
    print_rows(["compared", "found then", "found now", ""], [_row(line) for line in found.lines])
    unlike = [line.what for line in found.lines if not line.same]
    if not unlike:
        say(f"run {found.id}: the same")
        return
    say(f"run {found.id}: not the same: {', '.join(unlike)}")
    if found.environment:
        say("")
        print_rows(["differs", "then", "now"], [_row(line)[:3] for line in found.environment])
    else:
        say("the recorded facts of the two environments do not differ")


def _row(line: "FieldDiff") -> list[str]:
    return [line.what, _text(line.first), _text(line.again), "same" if line.same else "DIFFERS"]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return value if isinstance(value, str) else "–" if value is None else json.dumps(value)
