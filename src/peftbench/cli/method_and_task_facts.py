"""Listings of units, and descriptions of single units, for people and programs."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peftbench.core.registry import Unit, UserError, did_you_mean
from peftbench.grid import expand
from peftbench.methods import METHODS, capabilities
from peftbench.metrics import METRICS
from peftbench.models import find, known_models
from peftbench.profiling import devices
from peftbench.studies import _pscp_weights
from peftbench.tasks import TASKS, Task, suite
from peftbench.tasks._prompt import prompt

KINDS = ("models", "methods", "tasks", "suites", "metrics", "weights", "grids", "devices", "runs")
SHOWN = ("model", "method", "task", "metric", "suite", "grid")
"""Kinds that `unit_facts` knows."""
BRIEF = {
    "models": ("name", "source", "about"),
    "methods": ("name", "learning_rate", "about"),
    "tasks": ("name", "kind", "sizes", "metrics"),
    "suites": ("name", "tasks"),
    "metrics": ("name", "about"),
    "weights": ("name", "form", "costs"),
    "grids": ("name", "sizes", "about"),
    "devices": ("name", "memory", "source"),
}
"""Columns of each kind in a listing for people. `show` and `--json` give all facts."""
ABILITIES = {
    "decoder": "decoder",
    "encoder-decoder": "encoder–decoder",
    "merge": "merges",
    "gradient_checkpointing": "checkpointing",
    "layers": "layers",
    "four_bit": "4-bit",
}
"""Columns of the capabilities, and their headings in a listing."""


def listing(what: str) -> list[dict[str, Any]]:
    """One entry per thing of a kind; `what` is one of `KINDS` except runs. Raises `UserError` for another kind."""
    if what == "models":
        return [
            {"name": m.name, "source": m.source if not m.directory else "bundled", "about": m.about}
            for m in known_models().values()
        ]
    if what == "methods":
        return [_method(unit) for unit in METHODS] + [_member(name) for name in _members()]
    if what == "tasks":
        return [_task(unit) for unit in TASKS]
    if what == "suites":
        return [_suite(name) for name in known_names("suite")]
    if what == "metrics":
        return [{"name": unit.name, "about": _first_line(unit)} for unit in METRICS]
    if what == "weights":
        return [_weights(name) for name in _pscp_weights.weight_set_names()]
    if what == "grids":
        return [_grid(name) for name in expand.ready()]
    if what == "devices":
        return _devices()
    raise did_you_mean("thing to list", what, list(KINDS))


def unit_facts(name: str, data: Path | None = None, kind: str | None = None) -> dict[str, Any] | None:
    """All facts of the unit, model, suite or grid of this name, or None if there is none.

    `kind` limits the search to one kind. If several things have the name, the first in the order of `SHOWN` is taken. A
    task comes with an example from `data`.
    """
    for each in (kind,) if kind else SHOWN:
        if name in known_names(each):
            return _about(each, name, data)
    return None


def known_names(kind: str | None = None) -> list[str]:
    """All names that `unit_facts` knows, or those of one kind."""
    if kind is None:
        return [name for each in SHOWN for name in known_names(each)]
    if kind == "model":
        return list(known_models())
    if kind == "suite":
        return sorted({name for unit in TASKS for name in unit.facts.suites})
    if kind == "method":
        return [*(unit.name for unit in METHODS), *METHODS.families, *_members()]
    if kind == "grid":
        return list(expand.ready())
    registries: dict[str, Iterable[Unit[Any]]] = {"task": TASKS, "metric": METRICS}
    return [unit.name for unit in registries[kind]]


def _about(kind: str, name: str, data: Path | None) -> dict[str, Any]:
    if kind == "method":
        return _method(METHODS[name]) | {"about": METHODS[name].doc, "arguments": _arguments(METHODS[name])}
    if kind == "task":
        unit = TASKS[name]
        return _task(unit) | {"about": unit.doc, "arguments": _arguments(unit)} | _example(unit, data)
    if kind == "metric":
        facts = METRICS[name].facts
        needs = ", ".join(facts.needs) or "nothing but answers"
        return {
            "name": name,
            "version": facts.version,
            "needs": needs,
            "paper": facts.paper,
            "about": METRICS[name].doc,
        }
    if kind == "suite":
        return _suite(name)
    if kind == "grid":
        return _grid(name) | {"file": expand.ready()[name].read_text(encoding="utf-8")}
    model = find(name)
    return {"name": name, "source": model.source, "about": model.about, "config": model.config or {}}


def _devices() -> list[dict[str, Any]]:
    return [
        {"name": name, "memory": f"{held.memory_bytes / 1e9:.0f} GB", "watts": held.watts, "source": held.source}
        for name, held in devices.known_devices().items()
    ]


def _first_line(unit: Unit[Any]) -> str:
    return unit.doc.split("\n\n")[0].replace("\n", " ")


def _suite(name: str) -> dict[str, Any]:
    return {"name": name, "tasks": ", ".join(suite(name))}


def _grid(name: str) -> dict[str, Any]:
    held = expand.load_grid(name)
    return {"name": name, "sizes": ", ".join(held.size), "about": held.about}


def _weights(name: str) -> dict[str, Any]:
    weights = _pscp_weights.weight_set(name)
    terms = [
        f"{cost}: C = {'measured' if constant is None else f'{constant:g}'}, β = {exponent:g}"
        for cost, (constant, exponent) in weights.terms.items()
    ]
    facts = {"name": name, "version": weights.version, "form": _pscp_weights.FORMS[weights.form]}
    return facts | {"costs": "; ".join(terms), "source": weights.source}


def _method(unit: Unit[Any]) -> dict[str, Any]:
    facts = unit.facts
    return {
        "name": unit.name,
        "learning_rate": facts.learning_rate,
        "arguments": ", ".join(f"{k}={v}" for k, v in _arguments(unit).items()),
        "paper": facts.paper,
        **_abilities(unit.name),
        "about": _first_line(unit),
    }


def _members() -> list[str]:
    """Methods that are members of a family, from the last measured capabilities: making them needs a heavy import."""
    return [name for name in capabilities() if name.partition(":")[0] in METHODS.families]


def _member(name: str) -> dict[str, Any]:
    known = capabilities()[name]
    facts = {"learning_rate": known["learning_rate"], "arguments": f"peftbench show {name}", "paper": known["paper"]}
    return {"name": name, **facts, **_abilities(name), "about": known["about"]}


def _abilities(name: str) -> dict[str, str]:
    """The capabilities of a method as yes, no, or `?` where they were not measured."""
    words = {True: "yes", False: "no", None: "?"}
    known = capabilities().get(name, {})
    return {label: words[known.get(key)] for key, label in ABILITIES.items()}


def _arguments(unit: Unit[Any]) -> dict[str, Any]:
    return {n: "required" if p.default is inspect.Parameter.empty else p.default for n, p in unit.parameters.items()}


def _task(unit: Task) -> dict[str, Any]:
    facts = unit.facts
    return {
        "name": unit.name,
        "kind": facts.kind,
        "source": facts.source.name + (f" ({facts.source.config})" if facts.source.config else ""),
        "splits": f"{facts.source.train}/{facts.source.test or 'held out'}",
        "sizes": "/".join(f"{rows:,}" for rows in facts.source.sizes or ()),
        "labels": ", ".join(facts.labels),
        "metrics": ", ".join(facts.metrics),
        "licence": facts.licence,
        "suites": ", ".join(facts.suites),
    }


def _example(unit: Task, data: Path | None) -> dict[str, Any]:
    """The first training row, rendered, or the reason why it is not available."""
    from peftbench.tasks._loading import example_of, first

    if asked := [name for name, default in _arguments(unit).items() if default == "required"]:
        return {"example": f"depends on {', '.join(asked)}"}
    try:
        made = example_of(unit, first(unit.facts.source, unit.facts.source.train, data))
    except UserError as error:
        return {"example": f"not available: {error}"}
    return {"prompt": prompt(unit.facts, made.fields), "target": made.target}
