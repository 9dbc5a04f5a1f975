"""What there is, in words: listings and single units, for people and programs."""

import inspect
from pathlib import Path
from typing import Any

from peftbench.methods import METHODS
from peftbench.metrics import METRICS
from peftbench.models import find, known
from peftbench.registry import Unit, UserError, did_you_mean
from peftbench.tasks import TASKS, Task, prompt

KINDS = ("models", "methods", "tasks", "suites", "metrics", "runs")


def listing(what: str) -> list[dict[str, Any]]:
    """One entry each of what is called `models`, `methods`, `tasks`, `suites` or `metrics`. Raises `UserError`."""
    if what == "models":
        return [
            {"name": m.name, "source": m.source if not m.directory else "bundled", "about": m.about}
            for m in known().values()
        ]
    if what == "methods":
        return [_method(unit) for unit in METHODS]
    if what == "tasks":
        return [_task(unit) for unit in TASKS]
    if what == "suites":
        names = sorted({name for unit in TASKS for name in unit.facts.suites})
        return [{"name": name, "tasks": ", ".join(u.name for u in TASKS if name in u.facts.suites)} for name in names]
    if what == "metrics":
        return [{"name": unit.name, "about": _first_line(unit)} for unit in METRICS]
    raise did_you_mean("thing to list", what, list(KINDS))


def about(name: str, data: Path | None = None) -> dict[str, Any] | None:
    """Everything about a unit or a model; a task with an example from `data`. None if nothing is called that."""
    if name in METHODS:
        return _method(METHODS[name]) | {"about": METHODS[name].doc, "arguments": _arguments(METHODS[name])}
    if name in TASKS:
        return (
            _task(TASKS[name])
            | {"about": TASKS[name].doc, "arguments": _arguments(TASKS[name])}
            | _example(TASKS[name], data)
        )
    if name in METRICS:
        return {"name": name, "about": METRICS[name].doc}
    if name in known():
        model = find(name)
        return {"name": name, "source": model.source, "about": model.about, "config": model.config or {}}
    return None


def names() -> list[str]:
    """All that `about` knows."""
    return [*known(), *(unit.name for registry in (METHODS, TASKS, METRICS) for unit in registry)]


def _first_line(unit: Unit[Any]) -> str:
    return unit.doc.split("\n\n")[0].replace("\n", " ")


def _method(unit: Unit[Any]) -> dict[str, Any]:
    facts = unit.facts
    return {
        "name": unit.name,
        "learning_rate": facts.learning_rate,
        "arguments": ", ".join(f"{k}={v}" for k, v in _arguments(unit).items()),
        "paper": facts.paper,
        "about": _first_line(unit),
    }


def _arguments(unit: Unit[Any]) -> dict[str, Any]:
    return {n: "required" if p.default is inspect.Parameter.empty else p.default for n, p in unit.parameters.items()}


def _task(unit: Task) -> dict[str, Any]:
    facts = unit.facts
    return {
        "name": unit.name,
        "kind": facts.kind,
        "source": facts.source.name + (f" ({facts.source.config})" if facts.source.config else ""),
        "splits": f"{facts.source.train}/{facts.source.test or 'held out'}",
        "labels": ", ".join(facts.labels),
        "metrics": ", ".join(facts.metrics),
        "licence": facts.licence,
        "suites": ", ".join(facts.suites),
    }


def _example(unit: Task, data: Path | None) -> dict[str, Any]:
    """The first training row, rendered; or why it cannot be had."""
    from peftbench.tasks.door import example, read

    if asked := [name for name, default in _arguments(unit).items() if default == "required"]:
        return {"example": f"depends on {', '.join(asked)}"}
    source = unit.facts.source
    try:
        row = read(source, source.train, data, count=1).rows[0]
    except UserError as error:
        return {"example": f"not at hand: {error}"}
    made = example(unit, row)
    return {"prompt": prompt(unit.facts, made.fields), "target": made.target}
