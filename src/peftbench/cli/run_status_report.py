"""Commands about runs: do them, show their status, report them."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from peftbench.cli.options import (
    RESULTS,
    AsJson,
    DataDir,
    GridFile,
    LauncherName,
    LimitOption,
    MaybeGrid,
    Models,
    Plugins,
    Retry,
    Size,
    StoreDir,
    Threads,
    Timeout,
    WeightSets,
    Workers,
    grid_search,
    held_store,
    ids,
    plug,
    say_shadowed,
    snapshot_of,
)
from peftbench.cli.output import print_json, print_rows, say, warn_damaged
from peftbench.cli.run_with_progress import print_results, run_and_report, say_fruitless
from peftbench.core.registry import UserError
from peftbench.core.spec import BAD


def run(
    grid: GridFile,
    store: StoreDir = RESULTS,
    data: DataDir = None,
    model: Models = None,
    limit: LimitOption = None,
    size: Size = None,
    plugin: Plugins = None,
    workers: Workers = 0,
    threads: Threads = 1,
    timeout: Timeout = None,
    launcher: LauncherName = "local",
    keep_adapters: Annotated[bool, typer.Option("--keep-adapters", help="keep the trained adapters")] = False,
    retry_failed: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Run the missing cells of a grid.

    Prints the leaderboard at the end. The same command resumes.

    Several of these commands may work on one grid and store at once, also on machines that share a file system.
    Exit status 0: every run has a result; 1: some failed or are missing; 2: none has one, or the command failed.
    A run counts as a result if its method diverges, takes too much memory, is refused on this model or is stopped
    early by a search. A run that failed or exceeded the time limit does not count.
    """
    say_shadowed(grid, model or ())
    run_and_report(
        grid,
        store,
        models=model or (),
        limit=limit,
        size=size,
        plugins=plugin or (),
        data=data,
        launcher=launcher,
        workers=workers,
        threads=threads,
        timeout=timeout,
        keep_adapters=keep_adapters,
        retry_failed=retry_failed,
        as_json=as_json,
    )


def status(
    grid: MaybeGrid = None,
    store: StoreDir = RESULTS,
    model: Models = None,
    limit: LimitOption = None,
    size: Size = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Count runs by status, and show why some failed."""
    plug(plugin)
    place = snapshot_of(store, result_files_only=True)
    search = grid_search(grid, place, models=model, limit=limit, size=size) if grid else None
    held_store(store)
    wanted = ids(search.asked()) if search else None
    entries = [entry for id_, entry in place.entries().items() if wanted is None or id_ in wanted]
    counts = {"ok": 0} | Counter(entry.status for entry in entries)
    if search is not None:
        counts["missing"] = len(ids(search.whole()) - {entry.id for entry in entries})
    bad = [entry for entry in entries if entry.status in BAD]
    if as_json:
        failures = [{"id": entry.id, "status": entry.status, "error": entry.error} for entry in bad]
        fruitless = {"no_winner": search.fruitless()} if search and search.studies else {}
        print_json({"counts": counts, "failures": failures, "corrupt": list(map(str, place.damaged))} | fruitless)
        return
    warn_damaged(place.damaged)
    print_rows(["status", "runs"], [[name, str(count)] for name, count in counts.items()])
    if bad:
        specs = [place.results()[entry.id][0].spec for entry in bad]
        print_rows(
            ["id", "method", "task", "status", "why"],
            [
                [entry.id, str(spec.method), str(spec.task), entry.status, entry.error or ""]
                for entry, spec in zip(bad, specs, strict=True)
            ],
        )
    if search is not None:
        say_fruitless(search)


def report(
    grid: MaybeGrid = None,
    store: StoreDir = RESULTS,
    out: Annotated[
        Path | None, typer.Option(help="folder to write the report to; default: report/ in the store")
    ] = None,
    model: Models = None,
    limit: LimitOption = None,
    size: Size = None,
    weights: WeightSets = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Print and write the leaderboard.

    The leaderboard and the studies are written as Markdown, CSV and one HTML page. Published figures are separate.
    """
    from peftbench import load_results
    from peftbench.studies._pscp_weights import weight_sets

    sets, plugins = weight_sets(weights or ()), plug(plugin)
    if grid:
        say_shadowed(grid, model or ())
    found = load_results(store, grid, models=model or (), plugins=plugins, limit=limit, size=size)
    warn_damaged(found.damaged)
    if found.runs.empty and (grid or found.published.empty):
        raise UserError(f"store {store}: no results{' of this grid' if grid else ''}; run a grid first")
    print_results(found, as_json, sets, published=True)
    for path in found.report(out or store / "report", sets):
        say(f"wrote {path}", stderr=True)
    if not found.runs.empty and not found.leaderboard(sets):
        say("there is no leaderboard: the store has only trials of searches; run the grid again", stderr=True)
