"""Commands that forecast the cost of runs: `plan`, and `calibrate`, which measures the speed of this machine."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli import shell_completion
from peftbench.cli.options import (
    RESULTS,
    AsJson,
    DataDir,
    GridFile,
    LimitOption,
    Models,
    Plugins,
    Size,
    StoreDir,
    Workers,
    grid_search,
    ids,
    plug,
    snapshot_of,
)
from peftbench.cli.output import console, print_json, print_rows, say, warn_damaged

if TYPE_CHECKING:
    from rich.progress import Progress

    from peftbench.core.spec import RunSpec
    from peftbench.profiling.detectable_difference import Resolution
    from peftbench.profiling.forecast import Forecast
    from peftbench.results.store import Store

OnDevice = Annotated[
    str,
    typer.Option(
        "--device",
        help="device of the runs: here (this machine), or the name of a GPU",
        metavar="NAME",
        autocompletion=shell_completion.complete_devices,
    ),
]
Page = Annotated[Path | None, typer.Option("--html", help="also write all cells as an HTML page", metavar="FILE")]
CostsOption = Annotated[
    bool, typer.Option("--costs/--no-costs", help="forecast the cost of each cell, or only count runs")
]

CELL = ("model", "method", "task", "size")


def plan(
    grid: GridFile,
    store: StoreDir = RESULTS,
    data: DataDir = None,
    device: OnDevice = "here",
    workers: Workers = 0,
    model: Models = None,
    limit: LimitOption = None,
    size: Size = None,
    plugin: Plugins = None,
    costs: CostsOption = True,
    html: Page = None,
    as_json: AsJson = False,
) -> None:
    """Show what a grid asks for and what it will cost.

    Also shows how much of it is done. Nothing is run or downloaded.
    """
    plug(plugin)
    place = snapshot_of(store)
    search = grid_search(grid, place, models=model, limit=limit, size=size)
    specs = search.whole()
    missing = ids(specs) - search.results.keys()
    warn_damaged(place.damaged)
    ahead = _forecast(search.stand_ins(), data, device, workers) if costs else None
    if html is not None and ahead is not None:
        from peftbench.report.plan import forecast_page

        html.write_text(forecast_page(ahead, Path(grid).stem), encoding="utf-8")
    if as_json:
        counts = {"runs": len(specs), "done": len(specs) - len(missing), "missing": len(missing)}
        told: dict[str, Any] = {}
        if ahead is not None:
            told = {k: v for k, v in ahead.to_dict().items() if k != "cells"}
            told["resolution"] = [asdict(each) for each in _resolutions(ahead, place, specs)]
        print_json(counts | told | {"cells": _cells(specs, missing, ahead)})
        return
    if ahead is None:
        held = [[c["model"], c["method"], c["task"], f"{c['done']}/{c['runs']}"] for c in _cells(specs, missing, None)]
        print_rows(["model", "method", "task", "done"], held)
    else:
        from peftbench.report.plan import HEADINGS, forecast_lines, forecast_remarks, resolution_text

        print_rows(list(HEADINGS), list(forecast_lines(ahead)))
        for remark in [*forecast_remarks(ahead), *map(resolution_text, _resolutions(ahead, place, specs))]:
            say(remark)
    if search.studies:
        say("searches are forecast at the middle of their ranges, as if no trial were stopped early")
    left = _left(ahead, _cells(specs, missing, None)) if ahead and 0 < len(missing) < len(specs) else ""
    say(f"{len(specs)} runs, {len(specs) - len(missing)} done, {len(missing)} to do{left}")
    if html is not None:
        say(f"wrote {html}", stderr=True)


def _left(ahead: "Forecast", cells: list[dict[str, Any]]) -> str:
    """The time that the missing runs will take, as text: their share of the time of all runs. Empty if unknown."""
    from peftbench.studies._text_format import duration_text

    shares = {tuple(cell[name] for name in CELL): 1 - cell["done"] / cell["runs"] for cell in cells}
    whole = ahead.makespan
    if not whole:
        return ""
    costs = [
        ((one.model, one.method, one.task, str(one.size)), (one.seconds or 0) * one.seeds) for one in ahead.runnable
    ]
    left = sum(seconds * shares.get(cell, 1) for cell, seconds in costs)
    return f": {duration_text(whole * left / sum(seconds for _, seconds in costs))}"


def _resolutions(ahead: "Forecast", place: "Store", specs: "list[RunSpec]") -> "list[Resolution]":
    """The differences that the grid can detect, from the spread over seeds of its finished runs or an assumed one."""
    from peftbench.profiling.detectable_difference import resolutions
    from peftbench.stats.power import SPREAD
    from peftbench.studies._seed_spread import seed_spread

    table = place.table(ids(specs))
    found = seed_spread(table) if len(table) else None
    return resolutions(ahead.cells, SPREAD if found is None else found, measured=found is not None)


def calibrate(as_json: AsJson = False) -> None:
    """Measure how fast this machine trains.

    `plan` forecasts times from it. It takes about a minute; nothing else should run meanwhile.
    """
    from peftbench.profiling.calibration import calibrated

    found = calibrated(lambda line: None if as_json else say(line, stderr=True))
    if as_json:
        print_json(found)
        return
    print_rows(
        ["step", "measured s", "fitted s"],
        [[row["what"], f"{row['seconds']:.4f}", f"{row['fitted']:.4f}"] for row in found["steps"]],
    )
    say(f"wrote {found['file']}")


def warn(specs: "list[RunSpec]", data: Path | None, workers: int) -> None:
    """Warn of metrics that are not available on this machine and, for large models, of runs that will not fit.

    Runs that will be refused are listed too.
    """
    from peftbench.profiling import is_large
    from peftbench.tasks._scoring import refusals

    for line in refusals(spec.task for spec in specs):
        say(f"warning: {line}", stderr=True)
    if any(map(is_large, specs)):
        from peftbench.report.plan import troubles

        for line in troubles(_forecast(specs, data, "here", workers)):
            say(f"warning: {line}", stderr=True)


def _forecast(specs: "list[RunSpec]", data: Path | None, device: str, workers: int) -> "Forecast":
    from rich.progress import Progress

    from peftbench.core.machine_resources import usable_cpus
    from peftbench.launch.capacity import default_workers
    from peftbench.profiling.devices import HERE
    from peftbench.profiling.devices import find_device as named
    from peftbench.profiling.forecast import forecast

    on, processes = named(device), min(usable_cpus(), 4)
    count = workers or (default_workers(specs) if device == HERE else 1)
    with Progress(console=console(stderr=True), transient=True) as progress:
        line = progress.add_task("forecasting costs", total=None)
        told = partial(_tell, progress, line)
        return forecast(specs, on, data, count, told=told, processes=processes)


def _tell(progress: "Progress", line: Any, done: int, total: int) -> None:
    progress.update(line, completed=done, total=total)


def _cells(specs: "list[RunSpec]", missing: set[str], ahead: "Forecast | None") -> list[dict[str, Any]]:
    """One entry per cell: what it is, its runs, how many are done, and its costs if they were forecast."""
    cells: dict[tuple[str, ...], dict[str, Any]] = {}
    for spec in specs:
        key = (spec.model_name, str(spec.method), str(spec.task), str(spec.size))
        named = dict(zip(CELL, key, strict=True))
        cell = cells.setdefault(key, named | {"runs": 0, "done": 0})
        cell["runs"] += 1
        cell["done"] += spec.id not in missing
    for cost in ahead.cells if ahead else ():
        found = {k: v for k, v in asdict(cost).items() if k != "seeds"}
        cells[cost.model, cost.method, cost.task, cost.size] |= found
    return list(cells.values())
