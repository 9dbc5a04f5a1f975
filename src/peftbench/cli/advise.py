"""The command `advise`: which method suits a model, a task and limits."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli import shell_completion
from peftbench.cli.options import RESULTS, AsJson, DataDir, Plugins, StoreDir, plug, snapshot_of
from peftbench.cli.output import console, print_json, say, spoken_warnings, warn_damaged
from peftbench.cli.plan import OnDevice
from peftbench.core.number_parsing import quantity
from peftbench.core.registry import UserError

if TYPE_CHECKING:
    from peftbench.advisor.advice_from_evidence import Answer, Evidence
    from peftbench.results.store import Store


def advise(
    model: Annotated[
        str,
        typer.Option(
            help="base model: an alias, a directory, or a Hub id", autocompletion=shell_completion.complete_models
        ),
    ] = "pocket",
    task: Annotated[
        str | None,
        typer.Option(help="a task of peftbench", metavar="NAME", autocompletion=shell_completion.complete_tasks),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="instead of a task: a kind of task, such as classification, qa, math")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="instead of a task: your own file (CSV, JSON, parquet)", metavar="FILE")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="input columns of the file", metavar="A,B")] = None,
    target: Annotated[str | None, typer.Option(help="target column of the file", metavar="COLUMN")] = None,
    labels: Annotated[
        str | None, typer.Option(help="labels of the file; without it, the target is free text", metavar="A,B")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="number of training rows; default: all rows of the task or file")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="maximum peak memory, such as 24GB")] = None,
    time: Annotated[str | None, typer.Option(help="maximum training time, such as 2h")] = None,
    latency: Annotated[str | None, typer.Option(help="maximum time per new token, such as 30ms")] = None,
    adapter_size: Annotated[str | None, typer.Option(help="maximum size of the saved adapter, such as 50MB")] = None,
    parameters: Annotated[str | None, typer.Option(help="maximum number of trainable parameters, such as 10M")] = None,
    prefer: Annotated[
        str, typer.Option(help="what to rank by: quality, memory, time, speed, size, or a set of PSCP weights")
    ] = "quality",
    within: Annotated[
        float, typer.Option(help="when ranking by a cost: points of score that may be lost for a lower cost")
    ] = 2.0,
    device: OnDevice = "here",
    store: StoreDir = RESULTS,
    data: DataDir = None,
    published: Annotated[
        bool, typer.Option("--published", help="also use published figures, listed separately")
    ] = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="measure how good the advice is by leaving out one task at a time")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="number of methods whose costs are forecast at a time")] = 10,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Recommend methods for a model, a task and limits.

    The advice is based on your own runs, on published figures, or on both.
    """
    from peftbench import advise as answers

    if not 0 <= within < math.inf:
        raise UserError(f"--within {within:g} is not valid: give a number of points, 0 or more")
    if evaluate:
        plug(plugin)
        _evaluate(_evidence(snapshot_of(store), published), as_json)
        return
    own = {"data": file, "fields": _names(fields), "target": target, "labels": _names(labels)} if file else None
    if own and not (fields and target):
        raise UserError(f"--file {file}: give its input columns with --fields and its target column with --target")
    given = {
        "peak_memory_bytes": quantity("--memory", memory, "bytes"),
        "train_seconds": quantity("--time", time, "seconds"),
        "latency_ms": quantity("--latency", latency, "ms"),
        "adapter_bytes": quantity("--adapter-size", adapter_size, "bytes"),
        "trainable_parameters": quantity("--parameters", parameters, "count"),
    }
    with spoken_warnings():
        found = answers(
            model,
            task=task,
            kind=kind,
            file=own,
            rows=rows,
            limits={cost: most for cost, most in given.items() if most is not None},
            prefer=prefer,
            within=within,
            device=device,
            store=store,
            data=data,
            published=published,
            top=top,
            plugins=plugin or (),
            progress=True,
        )
    if as_json:
        print_json({"device": device, "advice": [_plain(one) for one in found]})
        return
    for one in found:
        _print(one)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def _evidence(place: "Store", published: bool) -> "Evidence":
    """The evidence for the advice. Warns of damaged files, and of a store that has no scores."""
    from peftbench.advisor.advice_from_evidence import evidence

    found = evidence(place, published)
    warn_damaged(found.damaged)
    if found.fell_back:
        say(f"store {place.root} has no scores; using published figures instead", stderr=True)
    return found


def _print(found: "Answer") -> None:
    from peftbench.advisor.presentation import advice_section
    from peftbench.report.terminal import print_section

    print_section(console(), advice_section(found.advice, found.entries, list(found.remarks)))


def _plain(found: "Answer") -> dict[str, Any]:
    """An answer as plain values."""
    from peftbench.advisor.presentation import data

    return data(found.advice, found.entries, list(found.remarks))


def _evaluate(evidence: "Evidence", as_json: bool) -> None:
    from dataclasses import asdict

    from peftbench.advisor.presentation import evaluation_section
    from peftbench.advisor.regret import RegretReport, leave_one_task_out
    from peftbench.report.terminal import print_section

    told: dict[str, Any] = {}
    for published, cells in evidence.items():
        name, found = "published" if published else "measured", leave_one_task_out(cells)
        told[name] = {"why": found} if isinstance(found, str) else asdict(found)
        if not as_json and isinstance(found, RegretReport):
            print_section(console(), evaluation_section(found, published))
        elif not as_json:
            say(f"the regret of {name} evidence cannot be computed: {found}")
    if as_json:
        print_json(told)
