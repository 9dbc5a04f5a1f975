"""Units of the user's own, from the process that knows them to worker processes.

A unit of a script, a notebook or standard input is sent as it is (by value); one of a module or a plugin file by its
name, for the worker to import.
"""

import importlib
import inspect
import pickle
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftbench.core.registry import PLUGIN, SCRIPT, Registry, Unit, UserError, error_line, load_plugin
from peftbench.core.spec import RunSpec
from peftbench.methods import METHODS
from peftbench.metrics import METRICS
from peftbench.tasks import TASKS, resolve

REGISTRIES: dict[str, Registry[Any]] = {"method": METHODS, "task": TASKS, "metric": METRICS}


@dataclass(frozen=True)
class UserUnits:
    """What a worker needs to know the units: plugin files, names of modules, and pickled units."""

    plugins: tuple[Path, ...] = ()
    modules: tuple[str, ...] = ()
    pickled: bytes = b""

    def load(self) -> None:
        """Make the units known in this process. Raises `UserError` if one cannot be imported."""
        for path in self.plugins:
            load_plugin(path)
        for name in self.modules:
            try:
                importlib.import_module(name)
            except Exception as error:
                raise UserError(f"module {name}, which defines a unit: {error_line(error)}") from error
        if self.pickled:
            for unit in pickle.loads(self.pickled):  # noqa: S301 (made by the process that started this one)
                # Its version is that of the script; the main module here is another.
                unit.function.__module__ = "peftbench_script"
                REGISTRIES[unit.kind].put(unit)


def user_units(specs: Iterable[RunSpec], plugins: tuple[Path, ...] = ()) -> UserUnits:
    """The units of the user's own that runs need. Raises `UserError` for one that cannot be sent."""
    files, modules, by_value = dict.fromkeys(plugins), dict[str, None](), list[Unit[Any]]()
    for unit in {(unit.kind, unit.name): unit for unit in _used(specs)}.values():
        name = unit.function.__module__
        if name.startswith("peftbench."):
            continue
        module = sys.modules.get(name)
        if name.startswith(PLUGIN) and module is not None and module.__file__:
            files[Path(module.__file__).resolve()] = None
        elif name == SCRIPT or module is None or getattr(module, "__spec__", None) is None:
            by_value.append(unit)
        else:
            modules[name] = None
    return UserUnits(tuple(files), tuple(modules), _pickled(by_value))


def _used(specs: Iterable[RunSpec]) -> Iterator[Unit[Any]]:
    """The methods, tasks and metrics of runs, but for members of families."""
    choices = {(s.method.name, s.task.model_dump_json(include={"name", "arguments"})): s for s in specs}
    for spec in choices.values():
        task = resolve(spec.task.name, spec.task.arguments)
        named = [("method", spec.method.name), ("task", spec.task.name)]
        named += [("metric", name) for name in task.facts.metrics]
        found = (REGISTRIES[kind].own(name) for kind, name in named)
        yield from (unit for unit in found if unit is not None)


def _pickled(units: list[Unit[Any]]) -> bytes:
    if not units:
        return b""
    import cloudpickle

    for unit in units:
        # As text they would be read with the names of the script, which do not come along.
        unit.function.__annotations__ = inspect.get_annotations(unit.function, eval_str=True)
        try:
            cloudpickle.dumps(unit)
        except Exception as error:
            raise UserError(
                f"{unit.kind} '{unit.name}' of this script cannot be sent to worker processes: {error_line(error)}. "
                "Put it into a file of its own and name that as a plugin"
            ) from error
    return bytes(cloudpickle.dumps(units))
