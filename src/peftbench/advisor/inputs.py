"""Conversion of the options of `advise` to a question, and of rows of evidence to runs whose costs can be forecast."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

from peftbench.core.registry import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.advisor.evidence_similarity import KnownFacts, Place
    from peftbench.advisor.recommend import Predicted
    from peftbench.advisor.score_prediction import ScoreModel
    from peftbench.core.spec import Choice, RunSpec
    from peftbench.results.store import Store


@dataclass(frozen=True)
class Asked:
    """The model and task as in a grid, the kind of the task, and the number of training rows.

    `stands_in`: only a kind was given, so `task` is a representative task of that kind, used for the length of rows.
    """

    model: "Choice"
    task: "Choice"
    kind: str
    size: int | str
    rows: float
    stands_in: bool = False


def asked(model: str, task: str | None, kind: str | None, file: Mapping[str, Any] | None, rows: int | None) -> Asked:
    """Return the model and the task. Raises `UserError` unless exactly one of task, kind and file is given."""
    from peftbench.grid.entry_parsing import model_choices

    given = [name for name, value in {"--task": task, "--kind": kind, "--file": file}.items() if value is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: give only one of them")
    if not given:
        raise UserError(
            "the task is missing: give one of --task NAME, --kind KIND, or --file FILE with --fields and --target"
        )
    (base,) = model_choices(model)
    if kind is not None:
        return _of_kind(base, kind, rows)
    from peftbench.grid.entry_parsing import task_choices
    from peftbench.tasks import resolve

    found = [choice for choice, _ in task_choices(_entry(file) if file else str(task))]
    if len(found) != 1:
        raise UserError(
            f"--task {task}: it names {len(found)} tasks ({', '.join(map(str, found))}): give one of them, or --kind"
        )
    facts = resolve(found[0].name, found[0].arguments).facts
    count = _length(facts.source) if rows is None else rows
    return Asked(base, found[0], facts.kind, rows or "all", float(count))


def _entry(file: Mapping[str, Any]) -> dict[str, Any]:
    path = Path(file["data"]).expanduser()
    return {"use": "file"} | {key: value for key, value in file.items() if value} | {"data": str(path.absolute())}


def _length(source: Any) -> int:
    """Return the number of training rows of a task; 0 if it is unknown."""
    if source.files is None:
        return int((source.sizes or (0,))[0])
    from peftbench.tasks._file_formats import read_table

    # Without a test file, a fifth of the rows is used for the test.
    return round(len(read_table(Path(source.train), source.files)) * (1.0 if source.test else 0.8))


def _of_kind(model: "Choice", kind: str, rows: int | None) -> Asked:
    from peftbench.tasks import TASKS, Kind

    if kind not in get_args(Kind):
        raise did_you_mean("kind of task", kind, list(get_args(Kind)))
    if rows is None:
        raise UserError(f"--kind {kind}: give the number of training rows with --rows")
    from peftbench.grid.entry_parsing import task_choices
    from peftbench.profiling.row_lengths import measured_lengths

    # The task with the median prompt length among those with enough rows.
    units = [unit for unit in TASKS if unit.facts.kind == kind and unit.name in measured_lengths()]
    enough = [unit for unit in units if (unit.facts.source.sizes or (0,))[0] >= rows] or units
    enough.sort(key=lambda unit: (median(measured_lengths()[unit.name]["prompt"]), unit.name))
    ((task, _),) = task_choices(enough[len(enough) // 2].name)
    return Asked(model, task, kind, rows, float(rows), stands_in=True)


def known_facts(table: "pd.DataFrame", store: "Store") -> "KnownFacts":
    """Return facts about the tasks and models of a table that it lacks."""
    from peftbench.advisor.evidence_similarity import KnownFacts
    from peftbench.models import known_models as models
    from peftbench.tasks import TASKS

    kinds = {unit.name: str(unit.facts.kind) for unit in TASKS}
    results = store.run_results()
    for id_ in table.drop_duplicates(["task", "task_version", "task_arguments"])["id"] if "id" in table else ():
        if id_ in results and (result := results[id_]).spec.task.name == "file":
            kinds[str(result.spec.task)] = "classification" if result.spec.task.arguments.get("labels") else "qa"
    rows = {unit.name: unit.facts.source.sizes[0] for unit in TASKS if unit.facts.source.sizes}
    facts = {name: architecture(name) for name in sorted(set(table["model"])) if name in models()}
    shapes = {name: shape for name, (shape, _) in facts.items()}
    return KnownFacts(kinds, rows, shapes, {name: parameters for name, (_, parameters) in facts.items()})


def architecture(name: str) -> tuple[str, float]:
    """Return the shape and the number of parameters of a model; empty and 0 if its configuration is not available."""
    from peftbench.profiling.parameters_and_flops import configuration, on_meta

    try:
        config = configuration(name)
        count = sum(p.numel() for p in on_meta(config, "none", {}).model.parameters())
    except UserError:
        return "", 0.0
    return ("encoder-decoder" if config.is_encoder_decoder else "decoder"), float(count)


def question_place(question: Asked) -> "Place":
    """Return the place of the question."""
    from peftbench.advisor.evidence_similarity import Place
    from peftbench.core.spec import display_name

    name = question.model.called or display_name(question.model.name)
    shape, parameters = architecture(question.model.name)
    task = f"any {question.kind}" if question.stands_in else str(question.task)
    return Place(task, question.kind, name, str(question.size), question.rows, parameters, shape)


@dataclass(frozen=True)
class StartingSettings:
    """Starting settings of a method: a grid entry, and a run of it; if there is no run, `why` gives the reason."""

    entry: Mapping[str, Any]
    spec: "RunSpec | None"
    why: str = ""


def starting_settings(question: Asked, row: Mapping[str, Any], store: "Store") -> StartingSettings:
    """Return the settings of a row of evidence, for the model and the task of the question."""
    if row["status"] == "published":
        return _published(question, row)
    result, _ = store.results()[row["id"]]
    spec, rate = result.spec, result.learning_rate
    entry = {"use": spec.method.name, **spec.method.arguments}
    changes = {"model": question.model, "task": question.task, "size": question.size, "seed": 0, "trial": None}
    return StartingSettings(entry | _rate(rate), spec.model_copy(update=changes))


def _published(question: Asked, row: Mapping[str, Any]) -> StartingSettings:
    from peftbench.core.spec import RunSpec, Training
    from peftbench.grid.entry_parsing import choices
    from peftbench.methods import METHODS
    from peftbench.results.runs_table import arguments

    if row.get("unlike"):
        return StartingSettings(
            {"published_as": f"{row['method']}({row['method_arguments']})"}, None, str(row["unlike"])
        )
    entry = {"use": row["method"], **arguments(row["method_arguments"])}
    entry.pop("learning_rate", None)
    rate = row["learning_rate"]
    rate = None if rate is None or math.isnan(rate) else float(rate)
    try:
        ((method, _),) = choices(METHODS, entry, None)
    except UserError as error:
        return StartingSettings(entry | _rate(rate), None, f"not a known method: {error}")
    training = Training(learning_rate=rate)
    spec = RunSpec(
        model=question.model,
        method=method,
        task=question.task,
        size=question.size,
        seed=0,
        train=training,
    )
    return StartingSettings(entry | _rate(rate), spec)


def _rate(rate: float | None) -> dict[str, float]:
    return {} if rate is None else {"learning_rate": rate}


def predict(
    starts: Mapping[str, StartingSettings],
    device: str,
    data: Path | None,
    latencies: Mapping[str, float],
    progress: Callable[[int, int], None],
) -> dict[str, "Predicted"]:
    """Return the forecast costs of each method on a device, with measured latencies."""
    from peftbench.advisor.recommend import Predicted
    from peftbench.methods import METHODS
    from peftbench.profiling.devices import find_device as named
    from peftbench.profiling.forecast import forecast

    specs = {start.spec.id: start.spec for start in starts.values() if start.spec is not None}
    cells = (
        dict(zip(specs, forecast(list(specs.values()), named(device), data, 1, progress=progress).cells, strict=True))
        if specs
        else {}
    )
    found = {}
    for label, one in starts.items():
        if one.spec is None:
            found[label] = Predicted(refused=one.why)
            continue
        cell = cells[one.spec.id]
        trains = METHODS[one.spec.method.name].facts.trains
        values = {cost: getattr(cell, cost, None) for cost in COSTS} | {"latency_ms": latencies.get(label)}
        if not trains:
            # Nothing is trained or saved; the peak memory is that of the weights in evaluation.
            values |= {"train_seconds": 0.0, "adapter_bytes": values["adapter_bytes"] or 0}
        costs = {cost: float(value) for cost, value in values.items() if value is not None}
        # "does not fit" is not a refusal: the memory of the device is a limit of the question.
        refused = cell.why if cell.status == "refused" else ""
        found[label] = Predicted(costs, refused, cell.why if cell.status == "not known" else "")
    return found


def with_device(limits: Mapping[str, float], device: str) -> dict[str, float]:
    """Return limits in which the peak memory is at most the memory of the device."""
    from peftbench.profiling.devices import find_device as named

    memory = float(named(device).memory_bytes)
    return {**limits, "peak_memory_bytes": min(memory, limits.get("peak_memory_bytes", memory))}


COSTS = (
    *("trainable_parameters", "total_parameters", "forward_flops_512", "extra_forward_flops_512", "peak_memory_bytes"),
    *("adapter_bytes", "train_seconds", "train_flops", "seconds"),
)
"""Costs that are taken from a forecast."""


def full_costs(like: "RunSpec", device: str, data: Path | None) -> dict[str, float] | str:
    """Return the costs of full fine-tuning with the settings of `like` in the units of PSCP, or why unknown."""
    from peftbench.core.spec import Choice

    spec = like.model_copy(update={"method": Choice(name="full")})
    found = predict({"full": StartingSettings({}, spec)}, device, data, {}, lambda *_: None)["full"]
    needed = ("trainable_parameters", "forward_flops_512", "peak_memory_bytes")
    if set(needed) - set(found.costs):
        return found.refused or found.why or "the costs of full fine-tuning are unknown"
    parameters, flops, memory = (found.costs[cost] for cost in needed)
    return {"trainable_parameters": parameters, "extra_forward_tflops": flops / 1e12, "peak_memory_gb": memory / 1e9}


def latency_by_method(table: "pd.DataFrame", model: str, machine_class: str) -> dict[str, float]:
    """Return median milliseconds per new token by label, from runs of this model on this machine class."""
    from peftbench.studies._run_labels import measured_runs, method_labels

    runs = measured_runs(table)
    runs = runs.assign(label=method_labels(runs))
    runs = runs[(runs["model"] == model) & (runs["machine_class"] == machine_class) & runs["latency_ms"].notna()]
    return {str(label): float(group["latency_ms"].median()) for label, group in runs.groupby("label")}


def aliases(published: "pd.DataFrame") -> "pd.DataFrame":
    """Return published rows with aliases of models instead of their Hub ids."""
    from peftbench.models import known_models as models

    names = {model.source: name for name, model in models().items() if not model.directory}
    return published.assign(model=published["model"].replace(names))


def with_unlike_reasons(published: "pd.DataFrame") -> "pd.DataFrame":
    """Return published rows with a column `unlike`: why the known settings do not reproduce the experiment.

    Such a row is not evidence for its settings. Its arguments are replaced by the source's name of the experiment, so
    that it is a separate variant.
    """
    from peftbench.results.published.required_settings import unlike

    why = published.apply(unlike, axis=1)
    called = published["published_as"].where(published["published_as"] != "", published["method_arguments"])
    settings = published["method_arguments"].where(why == "", called)
    # Two learning rates of one method are two experiments, not two seeds of one experiment.
    alike = ["source", "model", "task", "method", "method_arguments"]
    several = published.groupby(alike)["learning_rate"].transform("nunique") > 1
    rates = (
        settings
        + settings.map(lambda text: ", " if text else "")
        + "learning_rate="
        + published["learning_rate"].map(str)
    )
    return published.assign(unlike=why, method_arguments=settings.where((why != "") | ~several, rates))


def nearest_settings(model: "ScoreModel", place_of: "Place", labels: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return the row of evidence from which each method's settings are taken."""
    from peftbench.advisor.recommend import support

    return {label: support(model.cells, label, place_of).settings for label in labels}
