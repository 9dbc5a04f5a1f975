"""Verbs about runs: do them, look at what is done, report it."""

from pathlib import Path
from typing import Annotated

import typer

from peftbench.cli.doing import carry_out, say_fruitless, tell
from peftbench.cli.options import (
    RESULTS,
    AsJson,
    DataDir,
    GridFile,
    Limit,
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
    expanded,
    ids,
    open_store,
    plug,
    searched,
    seconds,
)
from peftbench.cli.output import print_json, print_rows, say, warn_damaged
from peftbench.cli.planning import warn
from peftbench.registry import UserError
from peftbench.spec import BAD


def run(
    grid: GridFile,
    store: StoreDir = RESULTS,
    data: DataDir = None,
    model: Models = None,
    limit: Limit = None,
    size: Size = None,
    plugin: Plugins = None,
    workers: Workers = 0,
    threads: Threads = 1,
    timeout: Timeout = None,
    keep_adapters: Annotated[bool, typer.Option("--keep-adapters", help="keep the trained adapters")] = False,
    retry_failed: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Do every run of a grid that has no result yet, then print the leaderboard. The same command resumes.

    Several of these commands may work on one grid and store at once, also on machines that share a file system.
    """
    from peftbench.launch import Options

    plugins = plug(plugin)
    options = Options(data.resolve() if data else None, workers, threads, keep_adapters, plugins, seconds(timeout))
    place = open_store(store)
    search = searched(grid, (model, limit, size), place)
    warn(place.missing(search.stand_ins()), options.data, workers)
    carry_out(search, place, options, str(grid), retry_failed, as_json)


def status(
    grid: MaybeGrid = None,
    store: StoreDir = RESULTS,
    model: Models = None,
    limit: Limit = None,
    size: Size = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """How many runs there are of each status, and why some failed."""
    plug(plugin)
    place = open_store(store)
    search = searched(grid, (model, limit, size), place) if grid else None
    wanted = ids(search.asked()) if search else None
    results = {k: r for k, (r, _) in place.results().items() if wanted is None or k in wanted}
    counts: dict[str, int] = {"ok": 0}
    for result in results.values():
        counts[result.status] = counts.get(result.status, 0) + 1
    if search is not None:
        counts["missing"] = len(ids(search.whole()) - results.keys())
    bad = [(id_, result) for id_, result in results.items() if result.status in BAD]
    if as_json:
        failures = [{"id": id_, "status": result.status, "error": result.error} for id_, result in bad]
        fruitless = {"no_winner": search.fruitless()} if search and search.studies else {}
        print_json({"counts": counts, "failures": failures, "corrupt": list(map(str, place.damaged))} | fruitless)
        return
    warn_damaged(place.damaged)
    print_rows(["status", "runs"], [[name, str(count)] for name, count in counts.items()])
    if bad:
        print_rows(
            ["id", "method", "task", "status", "why"],
            [[id_, str(r.spec.method), str(r.spec.task), r.status, r.error or ""] for id_, r in bad],
        )
    if search is not None:
        say_fruitless(search)


def report(
    grid: MaybeGrid = None,
    store: StoreDir = RESULTS,
    out: Annotated[Path | None, typer.Option(help="folder of the report; default: report/ in the store")] = None,
    model: Models = None,
    limit: Limit = None,
    size: Size = None,
    weights: WeightSets = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Print the leaderboard, and apart what was published, and write both as Markdown, CSV and one HTML page."""
    from peftbench import report as reports
    from peftbench.analysis.weight_sets import weight_sets
    from peftbench.evidence import frame, kept
    from peftbench.report.sections import evidence

    plug(plugin)
    sets = weight_sets(weights or ())
    place = open_store(store)
    specs = expanded(grid, (model, limit, size), place) if grid else None
    wanted = ids(specs) if specs is not None else None
    table = place.table(wanted)
    figures, damaged = kept(store)
    warn_damaged(place.damaged | damaged)
    published = frame(figures)
    if table.empty and (grid or published.empty):
        raise UserError(f"store {store}: no results{' of this grid' if grid else ''}; run a grid first")
    shown = evidence(table, place.curves(table["id"]), sets)
    tell(table, shown, as_json, published)
    if table.empty:
        return
    if not shown.boards:
        raise UserError(f"store {store}: it has trials of searches alone; run the grid again")
    first = next(result for result, _ in place.results().values() if wanted is None or result.id in wanted)
    facts = {"machine": first.machine, "versions": first.versions, "settings": first.settings}
    context = {"title": grid.stem if grid else store.name, **facts}
    for path in reports.write(shown, context, out or store / "report", published):
        say(f"wrote {path}", stderr=True)
