"""Commands that forecast the cost of runs: `plan`, and `calibrate`, which measures the speed of this machine."""

from dataclasses import asdict
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
    say_shadowed,
)
from peftbench.cli.output import print_json, print_rows, say, spoken_warnings

if TYPE_CHECKING:
    from peftbench import Plan
    from peftbench.profiling.forecast import Forecast

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
    from peftbench import plan as planned
    from peftbench.report.plan import HEADINGS, forecast_lines, forecast_page, forecast_remarks, resolution_text

    say_shadowed(grid, model or ())
    with spoken_warnings():
        found = planned(
            grid,
            store,
            models=model or (),
            plugins=plugin or (),
            limit=limit,
            size=size,
            costs=costs,
            device=device,
            data=data,
            workers=workers,
            progress=True,
        )
    ahead, counts = found.forecast, {"runs": found["cells"], "done": found["done"], "missing": found["missing"]}
    if html is not None and ahead is not None:
        html.write_text(forecast_page(ahead, Path(grid).stem), encoding="utf-8")
    if as_json:
        told: dict[str, Any] = {}
        if ahead is not None:
            told = {k: v for k, v in ahead.to_dict().items() if k != "cells"}
            told["resolution"] = [asdict(each) for each in found.resolutions]
        print_json(counts | told | {"cells": _cells(found)})
        return
    if ahead is None:
        rows = [[c["model"], c["method"], c["task"], f"{c['done']}/{c['runs']}"] for c in _cells(found)]
        print_rows(["model", "method", "task", "done"], rows)
    else:
        print_rows(list(HEADINGS), list(forecast_lines(ahead)))
        for remark in [*forecast_remarks(ahead), *map(resolution_text, found.resolutions)]:
            say(remark)
    if any(spec.trial for spec in found["specs"]):
        say("searches are forecast at the middle of their ranges, as if no trial were stopped early")
    left = _left(ahead, _cells(found)) if ahead and found["done"] and found["missing"] else ""
    say("{runs} runs, {done} done, {missing} to do".format(**counts) + left)
    if html is not None and ahead is not None:
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


def calibrate(as_json: AsJson = False) -> None:
    """Measure how fast this machine trains.

    `plan` forecasts times from it. It takes about a minute; nothing else should run meanwhile.
    """
    from peftbench.profiling.speed_calibration import calibrated

    found = calibrated(lambda line: None if as_json else say(line, stderr=True))
    if as_json:
        print_json(found)
        return
    print_rows(
        ["step", "measured s", "fitted s"],
        [[row["what"], f"{row['seconds']:.4f}", f"{row['fitted']:.4f}"] for row in found["steps"]],
    )
    say(f"wrote {found['file']}")


def _cells(planned: "Plan") -> list[dict[str, Any]]:
    """One entry per cell: what it is, its runs, how many are done, and its costs if they were forecast."""
    cells: dict[tuple[str, ...], dict[str, Any]] = {}
    for spec in planned["specs"]:
        key = (spec.model_name, str(spec.method), str(spec.task), str(spec.size))
        named = dict(zip(CELL, key, strict=True))
        cell = cells.setdefault(key, named | {"runs": 0, "done": 0})
        cell["runs"] += 1
        cell["done"] += spec.id in planned.done_ids
    for cost in planned.forecast.cells if planned.forecast else ():
        found = {k: v for k, v in asdict(cost).items() if k != "seeds"}
        cells[cost.model, cost.method, cost.task, cost.size] |= found
    return list(cells.values())
