"""The verb that answers: which method for this model, this task, these limits."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli.options import RESULTS, AsJson, DataDir, Plugins, StoreDir, open_store, plug
from peftbench.cli.output import console, print_json, say, warn_damaged
from peftbench.cli.planning import OnDevice
from peftbench.cli.quantities import quantity
from peftbench.core.registry import UserError

if TYPE_CHECKING:
    from peftbench.advisor.evidence_kernel import EvidenceCell
    from peftbench.advisor.inputs import Asked, StartingSettings
    from peftbench.advisor.recommend import Advice, Question
    from peftbench.results.store import Store
    from peftbench.studies._pscp_weights import WeightSet


ROUNDS = 3
"""How often the costs of further methods are looked for, while none is known to fit."""


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
    """Which methods to take for a model, a task and limits, by your own runs, by published figures, or by both."""
    plug(plugin)
    if not 0 <= within < math.inf:
        raise UserError(f"--within {within:g}: a number of points, 0 or more")
    place = open_store(store)
    if evaluate:
        _evaluate(_evidence(place, published), as_json)
        return
    from peftbench.advisor import inputs
    from peftbench.advisor.recommend import Question

    own = {"data": file, "fields": _names(fields), "target": target, "labels": _names(labels)} if file else None
    if own and not (fields and target):
        raise UserError(f"--file {file}: say with --fields which columns are read, and with --target which is learned")
    preferred = _preferred(prefer)
    asked = inputs.asked(model, task, kind, own, rows)
    given = {
        "peak_memory_bytes": quantity("--memory", memory, "bytes"),
        "train_seconds": quantity("--time", time, "seconds"),
        "latency_ms": quantity("--latency", latency, "ms"),
        "adapter_bytes": quantity("--adapter-size", adapter_size, "bytes"),
        "trainable_parameters": quantity("--parameters", parameters, "count"),
    }
    limits = {cost: most for cost, most in given.items() if most is not None}
    question = Question(inputs.question_place(asked), inputs.with_device(limits, device), preferred, within)
    _answer(asked, question, _evidence(place, published), place, (device, data, top), as_json)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def _preferred(prefer: str) -> "str | WeightSet":
    """What comes first: one of the preferences, or a set of weights."""
    from peftbench.advisor.recommend import PREFERENCES
    from peftbench.core.registry import did_you_mean
    from peftbench.studies._pscp_weights import weight_set, weight_set_names

    if prefer in PREFERENCES:
        return prefer
    if prefer in weight_set_names() or prefer.endswith(".toml"):
        return weight_set(prefer)
    raise did_you_mean("preference", prefer, [*PREFERENCES, *weight_set_names()])


def _evidence(place: "Store", published: bool) -> "dict[bool, tuple[EvidenceCell, ...]]":
    """The cells that were measured and, asked for or for want of others, those that were published."""
    from peftbench.advisor import inputs
    from peftbench.advisor.evidence_kernel import evidence_cells
    from peftbench.results import published as published_figures

    table = place.table()
    warn_damaged(place.damaged)
    found = {False: evidence_cells(table, inputs.known_facts(table, place))} if len(table) else {}
    found = {sort: held for sort, held in found.items() if held}
    if published or not found:
        if not published:
            say(f"store {place.root}: no scores; by published figures instead", stderr=True)
        bundled = published_figures.gather(published_figures.bundled())
        figures, damaged = published_figures.kept_published(place.root)
        warn_damaged(damaged)
        rows = dict.fromkeys([*figures, *(row for held in bundled.rows.values() for row in held)])
        frame = inputs.with_unlike_reasons(inputs.aliases(published_figures.published_frame(rows)))
        found[True] = evidence_cells(frame, inputs.known_facts(frame, place), published=True)
    return found


def _evaluate(evidence: "Mapping[bool, tuple[EvidenceCell, ...]]", as_json: bool) -> None:
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


def _answer(
    asked: "Asked",
    question: "Question",
    evidence: "Mapping[bool, tuple[EvidenceCell, ...]]",
    place: "Store",
    where: tuple[str, Path | None, int],
    as_json: bool,
) -> None:
    from peftbench.advisor import presentation as words
    from peftbench.report.terminal import print_section

    told = []
    for published, cells in evidence.items():
        found, starts = _advice(asked, question, cells, published, place, where)
        remarks = _remarks(asked, question, found, where[0])
        entries = {label: start.entry for label, start in starts.items()}
        if as_json:
            told.append(words.data(found, entries, remarks))
        else:
            print_section(console(), words.advice_section(found, entries, remarks))
    if as_json:
        print_json({"device": where[0], "advice": told})


def _advice(
    asked: "Asked",
    question: "Question",
    cells: "tuple[EvidenceCell, ...]",
    published: bool,
    place: "Store",
    where: tuple[str, Path | None, int],
) -> "tuple[Advice, dict[str, StartingSettings]]":
    """The advice by some cells, and what to start from.

    Costs are forecast for some methods at a time, the best first, until one is known to fit, in at most `ROUNDS`.
    """
    from rich.progress import Progress

    from peftbench.advisor import inputs
    from peftbench.advisor.recommend import known_methods, recommend
    from peftbench.advisor.score_model import learn
    from peftbench.core import provenance
    from peftbench.studies._pscp_weights import WeightSet

    device, data, top = where
    model, here = learn(cells), device == "here"
    order = known_methods(model, question.place)
    known = inputs.latency_by_method(place.table(), question.place.model, provenance.machine_class()) if here else {}
    starts: dict[str, StartingSettings] = {}
    costs: dict[str, Any] = {}
    full: Any = "the costs of full fine-tuning are not known"
    with Progress(console=console(stderr=True), transient=True) as progress:
        line = progress.add_task("looking ahead", total=None)
        while True:
            settings = inputs.nearest_settings(model, question.place, order[len(costs) : len(costs) + top])
            some = {label: inputs.starting_settings(asked, row, place) for label, row in settings.items()}
            starts |= some
            costs |= inputs.predict(
                some, device, data, known, lambda done, total: progress.update(line, completed=done, total=total)
            )
            like = next((start.spec for start in starts.values() if start.spec), None)
            if isinstance(question.prefer, WeightSet) and question.prefer.reference == "full" and like:
                full = inputs.full_costs(like, device, data)
            found = recommend(model, question, costs, published, full)
            if found.ranked or len(costs) >= min(len(order), ROUNDS * top):
                return found, starts


def _remarks(asked: "Asked", question: "Question", found: "Advice", device: str) -> list[str]:
    """What is not known of costs."""
    remarks = []
    if asked.stands_in:
        remarks.append(f"the length of your rows: costs are for rows like those of {asked.task}")
    told = [option.costs for option in found.options]
    if not any("train_seconds" in costs and costs["train_seconds"] for costs in told):
        remarks.append("times here: measure this machine with `peftbench calibrate`, or name a --device")
    elif device != "here":
        remarks.append("how far times can be trusted: by the data sheet, right to a factor of two or so")
    if "latency_ms" in question.limits:
        remarks.append("latency is not forecast: it is known where runs of this model on this machine measured it")
    return remarks
