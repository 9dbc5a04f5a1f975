"""Verbs about runs: do them, look at what is done, report it."""

from pathlib import Path
from typing import Annotated

import typer

from peftbench.cli.doing import carry_out, leaderboard
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
    WeightSets,
    Workers,
    expanded,
    ids,
    open_store,
    plug,
)
from peftbench.cli.output import print_json, print_rows, say, warn_corrupt
from peftbench.cli.planning import warn
from peftbench.registry import UserError


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
    keep_adapters: Annotated[bool, typer.Option("--keep-adapters", help="keep the trained adapters")] = False,
    retry_failed: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Do every run of a grid that has no result yet, then print the leaderboard. The same command resumes."""
    from peftbench.launch import Options

    plugins = plug(plugin)
    specs = expanded(grid, model, limit, size)
    options = Options(data.resolve() if data else None, workers, threads, keep_adapters, plugins)
    place = open_store(store)
    warn(place.missing(specs), options.data, workers)
    carry_out(specs, place, options, str(grid), retry_failed, as_json)


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
    specs = expanded(grid, model, limit, size) if grid else None
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
    size: Size = None,
    weights: WeightSets = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Print the leaderboard, and apart what was published, and write both as Markdown, CSV and one HTML page."""
    from peftbench import evidence
    from peftbench import report as reports
    from peftbench.analysis.leaderboard import leaderboards
    from peftbench.analysis.weight_sets import weight_sets

    plug(plugin)
    sets = weight_sets(weights or ())
    place = open_store(store)
    specs = expanded(grid, model, limit, size) if grid else None
    wanted = ids(specs) if specs is not None else None
    table = place.table(wanted)
    warn_corrupt(place)
    if table.empty:
        raise UserError(f"store {store}: no results{' of this grid' if grid else ''}; run a grid first")
    published = evidence.frame(evidence.kept(store))
    leaderboard(place, specs, as_json, sets, published)
    first = next(result for result, _ in place.results().values() if wanted is None or result.id in wanted)
    facts = {"machine": first.machine, "versions": first.versions, "settings": first.settings}
    context = {"title": grid.stem if grid else store.name, **facts}
    boards, folder = leaderboards(table, weights=sets), out or store / "report"
    written = reports.write(boards, table, place.curves(wanted), context, folder, published)
    for path in written:
        say(f"wrote {path}", stderr=True)
