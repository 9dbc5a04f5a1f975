"""Verbs about runs: do them, look at what is done, report it."""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftbench.cli.options import (
    RESULTS,
    AsJson,
    DataDir,
    GridFile,
    Limit,
    MaybeGrid,
    Models,
    Plugins,
    StoreDir,
    expanded,
    ids,
    open_store,
    plug,
)
from peftbench.cli.output import console, print_json, print_rows, records, say, warn_corrupt
from peftbench.registry import UserError

if TYPE_CHECKING:
    from peftbench.spec import RunSpec
    from peftbench.store import Store


def run(
    grid: GridFile,
    store: StoreDir = RESULTS,
    data: DataDir = None,
    model: Models = None,
    limit: Limit = None,
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

    plugins = plug(plugin)
    specs, place = expanded(grid, model, limit), open_store(store)
    wanted = ids(specs)
    place.open()
    missing = place.missing(specs, ("failed", "out-of-memory", "diverged") if retry_failed else ())
    warn_corrupt(place)
    say(f"{len(specs)} runs in {grid}, {len(specs) - len(missing)} done before, in {store}", stderr=True)
    options = Options(data.resolve() if data else None, workers, threads, keep_adapters, plugins)
    started = time.monotonic()
    try:
        with Live(console(stderr=True), len(missing)) as live:
            launch(missing, place, options, live)
    except KeyboardInterrupt:
        again = shlex.join(["peftbench", *sys.argv[1:]])
        say(f"stopped; every finished run is kept. To go on, give the same command again: {again}", stderr=True)
        raise typer.Exit(130) from None
    say(f"{len(missing)} runs in {time.monotonic() - started:.0f} s", stderr=True)
    _leaderboard(place, specs, as_json)
    ended = [result.status for id_, (result, _) in place.results().items() if id_ in wanted]
    if bad := sum(status != "ok" for status in ended):
        say(f"{bad} runs did not end well: `peftbench status` says why, --retry-failed does them again", stderr=True)
    if specs and bad == len(ended):
        raise typer.Exit(1)


def plan(
    grid: GridFile,
    store: StoreDir = RESULTS,
    model: Models = None,
    limit: Limit = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """What a grid asks for and how much of it is done, without running anything."""
    plug(plugin)
    specs, place = expanded(grid, model, limit), open_store(store)
    missing = ids(place.missing(specs))
    warn_corrupt(place)
    counts: dict[tuple[str, str, str], list[int]] = {}
    for spec in specs:
        count = counts.setdefault((Path(spec.model.name).name, str(spec.method), str(spec.task)), [0, 0])
        count[0] += 1
        count[1] += spec.id not in missing
    if as_json:
        cells = [{"model": m, "method": k, "task": t, "runs": n, "done": d} for (m, k, t), (n, d) in counts.items()]
        print_json({"runs": len(specs), "done": len(specs) - len(missing), "missing": len(missing), "cells": cells})
        return
    rows = [[m, k, t, f"{done}/{runs}"] for (m, k, t), (runs, done) in counts.items()]
    print_rows(["model", "method", "task", "done"], rows)
    say(f"{len(specs)} runs, {len(specs) - len(missing)} done, {len(missing)} to do")


def status(
    grid: MaybeGrid = None,
    store: StoreDir = RESULTS,
    model: Models = None,
    limit: Limit = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """How many runs there are of each status, and why some failed."""
    plug(plugin)
    place = open_store(store)
    specs = expanded(grid, model, limit) if grid else None
    results = {k: r for k, (r, _) in place.results().items() if specs is None or k in ids(specs)}
    counts: dict[str, int] = {"ok": 0}
    for result in results.values():
        counts[result.status] = counts.get(result.status, 0) + 1
    if specs is not None:
        counts["missing"] = len(specs) - len(results)
    bad = [(id_, result) for id_, result in results.items() if result.status != "ok"]
    if as_json:
        failures = [{"id": id_, "status": result.status, "error": result.error} for id_, result in bad]
        print_json({"counts": counts, "failures": failures, "corrupt": [str(path) for path in place.corrupt]})
        return
    warn_corrupt(place)
    print_rows(["status", "runs"], [[name, str(count)] for name, count in counts.items()])
    if bad:
        print_rows(
            ["id", "method", "task", "status", "why"],
            [[id_, str(r.spec.method), str(r.spec.task), r.status, r.error or ""] for id_, r in bad],
        )


def report(
    grid: MaybeGrid = None,
    store: StoreDir = RESULTS,
    out: Annotated[Path | None, typer.Option(help="folder of the report; default: report/ in the store")] = None,
    model: Models = None,
    limit: Limit = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Print the leaderboard and write it as Markdown, CSV and one HTML page."""
    from peftbench import report as reports
    from peftbench.analysis.leaderboard import leaderboards

    plug(plugin)
    place = open_store(store)
    specs = expanded(grid, model, limit) if grid else None
    wanted = ids(specs) if specs is not None else None
    table = place.table(wanted)
    warn_corrupt(place)
    if table.empty:
        raise UserError(f"store {store}: no results{' of this grid' if grid else ''}; run a grid first")
    _leaderboard(place, specs, as_json)
    first = next(result for result, _ in place.results().values() if wanted is None or result.id in wanted)
    context = {"title": grid.stem if grid else store.name, "machine": first.machine, "versions": first.versions}
    written = reports.write(leaderboards(table), table, place.curves(wanted), context, out or store / "report")
    for path in written:
        say(f"wrote {path}", stderr=True)


def _leaderboard(place: "Store", specs: "list[RunSpec] | None", as_json: bool) -> None:
    from peftbench.analysis.leaderboard import leaderboards

    table = place.table(None if specs is None else ids(specs))
    boards = leaderboards(table) if len(table) else ()
    if as_json:
        print_json({"leaderboards": [board.to_dict() for board in boards], "runs": records(table)})
        return
    from peftbench.report.terminal import View

    for board in boards:
        console().print(View(board))
