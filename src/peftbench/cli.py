"""The verbs of the command line. Each parses and calls one public function."""

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench import cli_authoring
from peftbench.registry import UserError, did_you_mean, load_plugin

if TYPE_CHECKING:
    from rich.console import Console

    from peftbench.spec import RunSpec
    from peftbench.store import Store

app = typer.Typer(
    name="peftbench",
    help="Which parameter-efficient fine-tuning method should I use, and is the difference real?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_authoring.new, name="new")
app.add_typer(cli_authoring.check, name="check")

GridFile = Annotated[Path, typer.Argument(help="grid file (TOML)", metavar="GRID")]
MaybeGrid = Annotated[Path | None, typer.Argument(help="grid file; without it, the whole store", metavar="[GRID]")]
StoreDir = Annotated[Path, typer.Option("--store", help="folder of results", metavar="DIR")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data", help="local mirror of data sets, read before the Hub", metavar="DIR", envvar="PEFTBENCH_DATA"
    ),
]
Models = Annotated[list[str] | None, typer.Option("--model", help="instead of the grid's models; may be repeated")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="a Python file of units of your own", metavar="FILE")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
RESULTS = Path("results")


@app.command()
def run(
    grid: GridFile,
    store: StoreDir = RESULTS,
    data: DataDir = None,
    model: Models = None,
    plugin: Plugins = None,
    workers: Annotated[int, typer.Option(min=0, help="processes; 0: one a GPU, else one a core")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each; part of what makes results repeatable")] = 1,
    keep_adapters: Annotated[bool, typer.Option("--keep-adapters", help="keep the trained adapters")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="run again what did not end well")] = False,
    as_json: AsJson = False,
) -> None:
    """Do every run of a grid that has no result yet, then print the leaderboard. The same command resumes."""
    from peftbench.launch import Options
    from peftbench.launch.local import launch
    from peftbench.report.live import Live

    plugins = _plug(plugin)
    specs, place, console = _expand(grid, model), _store(store), _console(stderr=True)
    place.open()
    missing = place.missing(specs, ("failed", "out-of-memory", "diverged") if retry_failed else ())
    _warn_corrupt(place, console)
    console.print(
        f"{len(specs)} runs in {grid}, {len(specs) - len(missing)} done before, in {store}",
        highlight=False,
        soft_wrap=True,
    )
    options = Options(data.resolve() if data else None, workers, threads, keep_adapters, plugins)
    started = time.monotonic()
    try:
        with Live(console, len(missing)) as live:
            launch(missing, place, options, live)
    except KeyboardInterrupt:
        console.print(
            f"stopped; every finished run is kept. To go on, give the same command again: {_command()}", soft_wrap=True
        )
        raise typer.Exit(130) from None
    console.print(f"{len(missing)} runs in {time.monotonic() - started:.0f} s", highlight=False)
    _leaderboard(place, specs, as_json)
    if specs and not any(result.status == "ok" for id_, (result, _) in place.results().items() if id_ in _ids(specs)):
        raise typer.Exit(1)


@app.command()
def plan(
    grid: GridFile, store: StoreDir = RESULTS, model: Models = None, plugin: Plugins = None, as_json: AsJson = False
) -> None:
    """What a grid asks for and how much of it is done, without running anything."""
    _plug(plugin)
    specs, place = _expand(grid, model), _store(store)
    missing = _ids(place.missing(specs))
    _warn_corrupt(place, _console(stderr=True))
    counts: dict[tuple[str, str, str], list[int]] = {}
    for spec in specs:
        count = counts.setdefault((Path(spec.model.name).name, str(spec.method), str(spec.task)), [0, 0])
        count[0] += 1
        count[1] += spec.id not in missing
    if as_json:
        cells = [{"model": m, "method": k, "task": t, "runs": n, "done": d} for (m, k, t), (n, d) in counts.items()]
        _print_json({"runs": len(specs), "done": len(specs) - len(missing), "missing": len(missing), "cells": cells})
        return
    rows = [[m, k, t, f"{done}/{runs}"] for (m, k, t), (runs, done) in counts.items()]
    _table(["model", "method", "task", "done"], rows)
    _console().print(f"{len(specs)} runs, {len(specs) - len(missing)} done, {len(missing)} to do", highlight=False)


@app.command()
def status(
    grid: MaybeGrid = None,
    store: StoreDir = RESULTS,
    model: Models = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """How many runs there are of each status, and why some failed."""
    _plug(plugin)
    place = _store(store)
    specs = _expand(grid, model) if grid else None
    results = {k: r for k, (r, _) in place.results().items() if specs is None or k in _ids(specs)}
    counts: dict[str, int] = {"ok": 0}
    for result in results.values():
        counts[result.status] = counts.get(result.status, 0) + 1
    if specs is not None:
        counts["missing"] = len(specs) - len(results)
    bad = [(id_, result) for id_, result in results.items() if result.status != "ok"]
    if as_json:
        failures = [{"id": id_, "status": result.status, "error": result.error} for id_, result in bad]
        _print_json({"counts": counts, "failures": failures, "corrupt": [str(path) for path in place.corrupt]})
        return
    _warn_corrupt(place, _console(stderr=True))
    _table(["status", "runs"], [[name, str(count)] for name, count in counts.items()])
    if bad:
        _table(
            ["id", "method", "task", "status", "why"],
            [[id_, str(r.spec.method), str(r.spec.task), r.status, r.error or ""] for id_, r in bad],
        )


@app.command("list")
def list_units(
    what: Annotated[str, typer.Argument(help="models, methods, tasks, suites, metrics or runs")],
    store: StoreDir = RESULTS,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """What there is: models, methods, tasks, suites, metrics, or the runs of a store."""
    from peftbench import catalogue

    _plug(plugin)
    rows = _runs(_store(store)) if what == "runs" else catalogue.listing(what)
    if as_json:
        _print_json(rows)
    elif rows:
        _table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="a method, task, model or metric, or the start of a run's id")],
    store: StoreDir = RESULTS,
    data: DataDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Everything about one thing: a unit with its arguments (a task with a rendered example), or a run."""
    from peftbench import catalogue

    _plug(plugin)
    facts = catalogue.about(name, data)
    if facts is None:
        if set(name) - set("0123456789abcdef"):
            raise did_you_mean("method, task, model, metric or run", name, catalogue.names())
        result, folder = _store(store).find(name)
        facts = json.loads(result.model_dump_json(exclude_none=True)) | {"folder": str(folder)}
    if as_json:
        _print_json(facts)
        return
    for key, value in facts.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
        _console().print(f"{key}: {shown}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(
    grid: MaybeGrid = None,
    store: StoreDir = RESULTS,
    out: Annotated[Path | None, typer.Option(help="folder of the report; default: report/ in the store")] = None,
    model: Models = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Print the leaderboard and write it as Markdown, CSV and one HTML page."""
    from peftbench import report as reports
    from peftbench.analysis.leaderboard import leaderboards

    _plug(plugin)
    place = _store(store)
    specs = _expand(grid, model) if grid else None
    ids = _ids(specs) if specs is not None else None
    table = place.table(ids)
    _warn_corrupt(place, _console(stderr=True))
    if table.empty:
        raise UserError(f"store {store}: no results{' of this grid' if grid else ''}; run a grid first")
    _leaderboard(place, specs, as_json)
    first = next(result for result, _ in place.results().values() if ids is None or result.id in ids)
    context = {"title": grid.stem if grid else store.name, "machine": first.machine, "versions": first.versions}
    written = reports.write(leaderboards(table), table, place.curves(ids), context, out or store / "report")
    for path in written:
        _console(stderr=True).print(f"wrote {path}", highlight=False, soft_wrap=True)


def _leaderboard(place: "Store", specs: "list[RunSpec] | None", as_json: bool) -> None:
    from peftbench.analysis.leaderboard import leaderboards

    table = place.table(None if specs is None else _ids(specs))
    boards = leaderboards(table) if len(table) else ()
    if as_json:
        _print_json({"leaderboards": [board.to_dict() for board in boards], "runs": _records(table)})
        return
    from peftbench.report.terminal import View

    for board in boards:
        _console().print(View(board))


def _expand(grid: Path, models: list[str] | None) -> "list[RunSpec]":
    from peftbench.grid import expand, load

    asked = load(grid)
    return expand(asked.model_copy(update={"models": tuple(models)}) if models else asked)


def _store(root: Path) -> "Store":
    from peftbench.store import Store

    return Store(root)


def _runs(place: "Store") -> list[dict[str, Any]]:
    columns = ["id", "model", "method", "method_arguments", "task", "size", "seed", "status", "score"]
    return _records(place.table()[columns])


def _records(table: Any) -> list[dict[str, Any]]:
    return list(json.loads(table.to_json(orient="records")))


def _ids(specs: "list[RunSpec]") -> set[str]:
    return {spec.id for spec in specs}


def _plug(plugins: list[Path] | None) -> tuple[Path, ...]:
    files = tuple(path.resolve() for path in plugins or ())
    for path in files:
        load_plugin(path)
    return files


def _warn_corrupt(place: "Store", console: "Console") -> None:
    for path in place.corrupt:
        console.print(f"warning: {path} is not a readable result; its run counts as missing", soft_wrap=True)


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, markup=False)


def _table(headings: list[str], rows: list[list[str]]) -> None:
    from peftbench.report.terminal import print_table

    print_table(_console(), headings, rows)


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False, default=str))


def _command() -> str:
    return shlex.join(["peftbench", *sys.argv[1:]])


def main() -> None:
    """The entry point: what the user can put right is one line on standard error and exit status 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
