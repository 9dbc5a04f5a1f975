"""Values that the shell completes: names of grids, models, tasks, metrics, methods, devices and launchers.

Each function takes what has been typed of a word and returns the names that begin so. Typer calls them only when the
shell asks.
"""

from collections.abc import Iterable
from glob import glob


def _beginning(names: Iterable[str], typed: str) -> list[str]:
    return sorted(name for name in names if name.startswith(typed))


def _paths(pattern: str) -> list[str]:
    return sorted(glob(pattern))  # noqa: PTH207 (as typed, with `./` before it)


def complete_grids(incomplete: str) -> list[str]:
    """Return ready grids, grid files and folders."""
    from peftbench.grid.expand import ready

    return [*_beginning(ready(), incomplete), *_paths(f"{incomplete}*.toml"), *_paths(f"{incomplete}*/")]


def complete_models(incomplete: str) -> list[str]:
    """Return known models and folders."""
    from peftbench.models import known_models

    return [*_beginning(known_models(), incomplete), *_paths(f"{incomplete}*/")]


def complete_devices(incomplete: str) -> list[str]:
    """Return `here` and the known devices."""
    from peftbench.profiling.devices import HERE, known_devices

    return _beginning([HERE, *known_devices()], incomplete)


def complete_launchers(incomplete: str) -> list[str]:
    """Return the launchers."""
    from peftbench.launch import launchers as known

    return _beginning(known(), incomplete)


def complete_kinds(incomplete: str) -> list[str]:
    """Return what `list` can list."""
    from peftbench.cli.method_and_task_facts import KINDS

    return _beginning(KINDS, incomplete)


def complete_names(incomplete: str) -> list[str]:
    """Return what `show` can show: kinds and names."""
    from peftbench.cli.method_and_task_facts import SHOWN, known_names

    return _beginning({*SHOWN, "run", *known_names()}, incomplete)


def complete_tasks(incomplete: str) -> list[str]:
    """Return the tasks."""
    from peftbench.tasks import TASKS

    return _beginning((unit.name for unit in TASKS), incomplete)
