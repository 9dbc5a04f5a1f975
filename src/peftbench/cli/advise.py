"""The verb that answers: which method for this model, this task, these limits."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli.options import RESULTS, AsJson, DataDir, Plugins, StoreDir, plug, snapshot_of
from peftbench.cli.output import console, print_json, say, warn_damaged
from peftbench.cli.plan import OnDevice
from peftbench.cli.quantities import quantity
from peftbench.core.registry import UserError

if TYPE_CHECKING:
    from peftbench.advisor.answer import Answer, Evidence
    from peftbench.results.store import Store


def advise(
    model: Annotated[str, typer.Option(help="the base: an alias, a directory, or a Hub id")] = "pocket",
    task: Annotated[str | None, typer.Option(help="a task of peftbench", metavar="NAME")] = None,
    kind: Annotated[str | None, typer.Option(help="or a kind of task alone, as classification, qa, math")] = None,
    file: Annotated[
        Path | None, typer.Option(help="or a file of your own (CSV, JSON, parquet)", metavar="FILE")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="its columns that are read", metavar="A,B")] = None,
    target: Annotated[str | None, typer.Option(help="its column that is learned", metavar="COLUMN")] = None,
    labels: Annotated[str | None, typer.Option(help="its labels; without, free text", metavar="A,B")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="training rows; default: all of the task or file")] = None,
    memory: Annotated[str | None, typer.Option(help="peak memory at most, as 24GB")] = None,
    time: Annotated[str | None, typer.Option(help="training time at most, as 2h")] = None,
    latency: Annotated[str | None, typer.Option(help="time of a new token at most, as 30ms")] = None,
    adapter_size: Annotated[str | None, typer.Option(help="what is kept of a method at most, as 50MB")] = None,
    parameters: Annotated[str | None, typer.Option(help="trainable parameters at most, as 10M")] = None,
    prefer: Annotated[
        str, typer.Option(help="what comes first: quality, memory, time, speed, size, or weights of PSCP")
    ] = "quality",
    within: Annotated[float, typer.Option(help="points given up for a lower cost that comes first")] = 2.0,
    device: OnDevice = "here",
    store: StoreDir = RESULTS,
    data: DataDir = None,
    published: Annotated[bool, typer.Option("--published", help="also by published figures, told apart")] = False,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="how good the advice is, each task left out")] = False,
    top: Annotated[int, typer.Option(min=1, help="methods whose costs are looked for at a time")] = 10,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Recommend methods for a model, a task and limits.

    By your own runs, by published figures, or by both.
    """
    plug(plugin)
    if not 0 <= within < math.inf:
        raise UserError(f"--within {within:g}: a number of points, 0 or more")
    place = snapshot_of(store)
    from peftbench.advisor import answer, inputs
    from peftbench.advisor.recommend import Question

    if evaluate:
        _evaluate(_evidence(place, published), as_json)
        return
    own = {"data": file, "fields": _names(fields), "target": target, "labels": _names(labels)} if file else None
    if own and not (fields and target):
        raise UserError(f"--file {file}: say with --fields which columns are read, and with --target which is learned")
    first = answer.preferred(prefer)
    asked = inputs.asked(model, task, kind, own, rows)
    given = {
        "peak_memory_bytes": quantity("--memory", memory, "bytes"),
        "train_seconds": quantity("--time", time, "seconds"),
        "latency_ms": quantity("--latency", latency, "ms"),
        "adapter_bytes": quantity("--adapter-size", adapter_size, "bytes"),
        "trainable_parameters": quantity("--parameters", parameters, "count"),
    }
    limits = {cost: most for cost, most in given.items() if most is not None}
    question = Question(inputs.question_place(asked), inputs.with_device(limits, device), first, within)
    found = []
    for kind_of, cells in _evidence(place, published).items():
        with _forecasts() as progress:
            found.append(
                answer.answer(
                    asked,
                    question,
                    cells,
                    place,
                    published=kind_of,
                    device=device,
                    data=data,
                    top=top,
                    progress=progress,
                )
            )
        if not as_json:
            _print(found[-1])
    if as_json:
        told = [_plain(one) for one in found]
        print_json({"device": device, "advice": told})


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def _evidence(place: "Store", published: bool) -> "Evidence":
    """The evidence, with a line for what is damaged, and where nothing was measured."""
    from peftbench.advisor.answer import evidence

    found = evidence(place, published)
    warn_damaged(found.damaged)
    if found.fell_back:
        say(f"store {place.root}: no scores; by published figures instead", stderr=True)
    return found


@contextmanager
def _forecasts() -> "Iterator[Callable[[int, int], None]]":
    """A bar on standard error while costs are forecast."""
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as progress:
        line = progress.add_task("looking ahead", total=None)
        yield lambda done, total: progress.update(line, completed=done, total=total)


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
            say(f"no regret of {name} evidence: {found}")
    if as_json:
        print_json(told)
