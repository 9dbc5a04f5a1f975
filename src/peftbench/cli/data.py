"""Verbs about data: fetch sets for machines without a network, and check a mirror."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli.options import AsJson, DataDir, Plugins, plug
from peftbench.cli.output import console, print_json, print_rows, say
from peftbench.core.registry import UserError
from peftbench.core.safe_text import visible

if TYPE_CHECKING:
    from peftbench.tasks._mirror import Fetched, Wanted


def fetch(
    names: Annotated[list[str], typer.Argument(help="tasks and suites", metavar="SUITE|TASK...")],
    to: Annotated[Path, typer.Option(help="folder of the mirror; then give it to --data", metavar="DIR")],
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Download data sets into a local mirror.

    For machines without a network.

    The same command goes on where it stopped: what is there and whole is not fetched again. Exit status 1 if some could
    not be had, 2 if none could.
    """
    from peftbench.tasks._mirror import wanted

    plug(plugin)
    asked, made = wanted(names)
    if made:
        say(f"nothing to fetch for {', '.join(made)}: they are made by rule or your own", stderr=True)
    done = _fetch_all(asked, to)
    if as_json:
        print_json({"mirror": str(to), "files": [_facts(each) for each in done], "made_by_rule": made})
    elif done:
        headings = ["data set", "config", "split", "rows", "status", "why"]
        facts = [_facts(each) for each in done]
        rows = [[str(one[name] or "") for name in ("hub_id", *headings[1:])] for one in facts]
        print_rows(headings, rows)
    failed = sum(each.status == "failed" for each in done)
    if failed:
        raise typer.Exit(1 if failed < len(done) else 2)


def check(
    folder: Annotated[Path | None, typer.Argument(help="the mirror; default: --data", metavar="[DIR]")] = None,
    data: DataDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Check a mirror against its manifest.

    And that the tasks can read it. Exit status 1 if not.
    """
    from peftbench.tasks._mirror import check_mirror as check_mirror

    plug(plugin)
    root = folder or data
    if root is None:
        raise UserError("which mirror? Give its folder, or set PEFTBENCH_DATA")
    found = check_mirror(root)
    if as_json:
        print_json({"mirror": str(root), "ok": not any(f.problem for f in found), "findings": list(map(asdict, found))})
    else:
        files = [["" if f.rows is None else f"{f.rows:,}", f.checksum] for f in found]
        rows = [[f.name, f.kind, *cells, f.problem or "ok", f.note] for f, cells in zip(found, files, strict=True)]
        print_rows(["name", "kind", "rows", "sha256", "state", "note"], rows)
    if any(finding.problem for finding in found):
        raise typer.Exit(1)


def _fetch_all(asked: "list[Wanted]", to: Path) -> "list[Fetched]":
    """One split after the other, with a bar on standard error."""
    if not asked:
        return []
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from peftbench.tasks._loading import split_path
    from peftbench.tasks._mirror import fetch_mirror

    shown = console(stderr=True)
    parts = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    done, results = [], fetch_mirror(asked, to)
    with Progress(*parts, console=shown, disable=not shown.is_terminal) as progress:
        bar = progress.add_task("", total=len(asked))
        for each in asked:
            progress.update(bar, description=visible(split_path(each.source, each.split).as_posix()))
            done.append(next(results))
            progress.advance(bar)
    return done


def _facts(each: "Fetched") -> dict[str, Any]:
    from peftbench.tasks._loading import key, split_path

    hub_id, config, split = key(each.wanted.source, each.wanted.split)
    return {
        "hub_id": hub_id,
        "config": config,
        "split": split,
        "status": each.status,
        "rows": int(each.line["rows"]) if each.line else None,
        "revision": each.line.get("revision"),
        "sha256": each.line.get("sha256"),
        "file": split_path(each.wanted.source, split).as_posix(),
        "why": each.why,
    }
