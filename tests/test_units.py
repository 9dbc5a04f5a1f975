"""What results depend on does not change unnoticed: signatures, defaults, facts and prompts of every unit.

A run is known by its names, arguments and versions. If a default or a prompt changed and the version did not, old
results would pass for new ones. `golden/units.json` has how everything was; after a change, raise the `version` in the
decorator of the unit, then run

    python tests/test_units.py --update
"""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_jsonable_python

from peftbench.core.registry import Registry, Unit
from peftbench.core.spec import RENAMED, Choice, Evaluation, Noun, Training
from peftbench.methods import METHODS, Method
from peftbench.metrics import METRICS, Metric
from peftbench.tasks import TASKS, Task
from peftbench.tasks._loading import example_of, read_rows
from peftbench.tasks._prompt import prompt

GOLDEN = Path(__file__).parent / "golden" / "units.json"
HOW = "python tests/test_units.py --update"
VERSIONED, SETTINGS = ("methods", "tasks"), ("Choice", "Training", "Evaluation")
State = dict[str, dict[str, Any]]


# How things are


def current() -> State:
    """All units of the package and all settings, in JSON form."""
    return {
        "methods": {unit.name: _method(unit) for unit in _own(METHODS)},
        "tasks": {unit.name: _task(unit) for unit in _own(TASKS)},
        "metrics": {unit.name: _metric(unit) for unit in _own(METRICS)},
        **{noun.__name__: _defaults(noun) for noun in (Choice, Training, Evaluation)},
    }


def _own(registry: Registry[Any]) -> list[Unit[Any]]:
    return [unit for unit in registry if unit.function.__module__.startswith("peftbench.")]


def _arguments(unit: Unit[Any]) -> dict[str, Any]:
    found = {}
    for name, parameter in unit.parameters.items():
        annotation = parameter.annotation
        text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        # A function that checks the value is known by its name, not by where it lies in memory.
        found[name] = {"type": re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)}
        if parameter.default is not parameter.empty:
            found[name]["default"] = to_jsonable_python(parameter.default)
    return found


def _method(unit: Method) -> dict[str, Any]:
    facts = unit.facts
    return {
        "version": facts.version,
        "arguments": _arguments(unit),
        "learning_rate": facts.learning_rate,
        "trains": facts.trains,
    }


def _metric(unit: Metric) -> dict[str, Any]:
    return {"version": unit.facts.version, "arguments": _arguments(unit), "needs": list(unit.facts.needs)}


def _task(unit: Task) -> dict[str, Any]:
    facts, source = unit.facts, unit.facts.source
    found = {
        "version": facts.version,
        "arguments": _arguments(unit),
        "instruction": facts.instruction,
        "labels": list(facts.labels),
        "positive": facts.positive,
        "metrics": list(facts.metrics),
        "max_new_tokens": facts.max_new_tokens,
        "merge_references": facts.merge_references,
        "source": {
            name: getattr(source, name) for name in ("name", "config", "train", "validation", "test", "revision")
        },
    }
    if source.generator is not None:
        rows = {split: read_rows(source, split, count=1).rows[0] for split in (source.train, source.test) if split}
        made = {split: example_of(unit, row) for split, row in rows.items()}
        found["first_rows"] = {
            split: {"prompt": prompt(facts, one.fields), "target": one.target} for split, one in made.items()
        }
    return found


def _defaults(noun: type[Noun]) -> dict[str, Any]:
    fields = noun.model_fields.items()
    return {name: to_jsonable_python(field.get_default()) for name, field in fields if not field.is_required()}


# What changed, and whether it may


def forbidden(old: State, new: State) -> list[str]:
    """Changes by which old results would pass for new ones, or would not be found; one line each."""
    found = []
    for kind in VERSIONED:
        for name in old[kind].keys() & new[kind].keys():
            before, after = old[kind][name], new[kind][name]
            changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
            raised = after["version"] > before["version"]
            if changed and not raised and not (changed == ["arguments"] and _only_added(before, after)):
                found.append(
                    f"{kind[:-1]} '{name}': {', '.join(changed)} changed, and its version is {after['version']} still: "
                    f"old results would pass for new ones. Raise `version` in its decorator to {before['version'] + 1}"
                )
    for noun in SETTINGS:
        for old_name, default in old[noun].items():
            # Under a new name it is the same, which `tests/test_grid.py` shows of ids and of old results.
            name = RENAMED.get(old_name, old_name)
            if name not in new[noun] or new[noun][name] != default:
                now = f"{new[noun][name]!r} now" if name in new[noun] else "gone"
                found.append(
                    f"{noun}: the default of {name} was {default!r} and is {now}: the ids of all old results depend on "
                    "it, as defaults are left out of them. Leave it, and set another value in grids"
                )
    return sorted(found)


def _only_added(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether arguments were added with defaults, and none changed: old runs keep their meaning and their id."""
    added = after["arguments"].keys() - before["arguments"].keys()
    kept = {name: value for name, value in after["arguments"].items() if name not in added}
    return kept == before["arguments"] and all("default" in after["arguments"][name] for name in added)


def update(path: Path, new: State) -> list[str]:
    """Write how things are, unless a change is forbidden. Returns what is."""
    refused = forbidden(json.loads(path.read_text(encoding="utf-8")), new) if path.exists() else []
    if not refused:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return refused


def main(arguments: list[str]) -> int:
    """`--update [FILE]`: exit status 1 and the reasons if it is refused."""
    if arguments[:1] != ["--update"]:
        sys.stderr.write(f"usage: {HOW}\n")
        return 2
    refused = update(Path(arguments[1]) if arguments[1:] else GOLDEN, current())
    sys.stderr.writelines(f"refused: {line}.\n" for line in refused)
    return 1 if refused else 0


# Tests


def test_nothing_changed_unnoticed() -> None:
    old, new = json.loads(GOLDEN.read_text(encoding="utf-8")), current()
    assert not (refused := forbidden(old, new)), "\n".join([*refused, f"Then: {HOW}"])
    changed = [
        f"{kind}: {name}"
        for kind in sorted(old | new)
        for name in sorted(old.get(kind, {}) | new.get(kind, {}))
        if old.get(kind, {}).get(name) != new.get(kind, {}).get(name)
    ]
    assert not changed, f"added, removed or of a new version: {', '.join(changed)}. To accept: {HOW}"


Change = Callable[[State], Any]
FORBIDDEN: list[tuple[Change, str]] = [
    (lambda s: s["methods"]["lora"]["arguments"]["rank"].update(default=8), "method 'lora': arguments changed"),
    (lambda s: s["methods"]["lora"]["arguments"].pop("rank"), "method 'lora': arguments changed"),
    (lambda s: s["methods"]["lora"]["arguments"].update(x={"type": "int"}), "method 'lora': arguments changed"),
    (lambda s: s["methods"]["lora"].update(learning_rate=1.0), "method 'lora': learning_rate changed"),
    (lambda s: s["methods"]["lora"].update(version=0), "method 'lora': version changed"),
    (lambda s: s["tasks"]["rte"].update(instruction="Well?"), "task 'rte': instruction changed.*decorator to 2"),
    (lambda s: s["tasks"]["rte"].update(labels=["yes", "no"], version=1), "task 'rte': labels changed"),
    (lambda s: s["tasks"]["rte"]["source"].update(revision="f" * 40), "task 'rte': source changed"),
    (lambda s: s["tasks"]["rte"]["metrics"].reverse(), "task 'rte': metrics changed"),
    (
        lambda s: s["tasks"]["pocket_arithmetic"]["first_rows"]["train"].update(prompt="?"),
        "task 'pocket_arithmetic': first_rows changed",
    ),
    (lambda s: s["Training"].update(weight_decay=0.1), "Training: the default of weight_decay .* ids of all old"),
    (lambda s: s["Training"].pop("weight_decay"), "Training: the default of weight_decay .* gone: the ids of all old"),
    (lambda s: s["Evaluation"].update(answer="rank"), "Evaluation: the default of answer was 'auto' and is 'rank' now"),
    (lambda s: s["Choice"].update(version=2), "Choice: the default of version"),
]


@pytest.mark.parametrize(("change", "message"), FORBIDDEN)
def test_a_change_without_a_new_version_is_refused(change: Change, message: str, tmp_path: Path) -> None:
    old = current()
    new = copy.deepcopy(old)
    change(new)
    path = tmp_path / "units.json"
    assert update(path, old) == []
    before = path.read_bytes()
    (line,) = update(path, new)
    assert re.match(message, line), line
    assert path.read_bytes() == before


ALLOWED: list[Change] = [
    lambda s: s["methods"]["lora"].update(version=3, learning_rate=1.0),
    lambda s: s["methods"]["lora"]["arguments"].update(x={"type": "int", "default": 0}),
    lambda s: s["methods"].pop("lora"),
    lambda s: s["tasks"].update(new={"version": 1}),
    lambda s: s["tasks"]["rte"].update(instruction="Well?", version=3),
    lambda s: s["metrics"].update(accuracy={"arguments": {"strict": {"type": "bool"}}}),
    lambda s: s["Training"].update(new_setting=None),
]


@pytest.mark.parametrize("change", ALLOWED)
def test_other_changes_are_accepted(change: Change, tmp_path: Path) -> None:
    old = current()
    new = copy.deepcopy(old)
    change(new)
    assert new != old
    path = tmp_path / "units.json"
    assert update(path, old) == update(path, new) == []
    assert json.loads(path.read_text(encoding="utf-8")) == new


def test_the_command(tmp_path: Path) -> None:
    """As a person would run it: a fresh file, then one that says another default was there before."""
    path = tmp_path / "units.json"
    command = [sys.executable, __file__, "--update", str(path)]
    assert subprocess.run(command, check=False).returncode == 0
    assert json.loads(path.read_text(encoding="utf-8")) == current()
    other = current()
    other["methods"]["lora"]["arguments"]["rank"]["default"] = 64
    path.write_text(json.dumps(other))
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("refused: method 'lora': arguments changed, and its version is 2 still")
    assert json.loads(path.read_text()) == other


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
