"""Options that several commands share, and functions that interpret them."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.cli import shell_completion
from peftbench.core.registry import UserError, load_plugin

if TYPE_CHECKING:
    from peftbench.core.spec import RunSpec
    from peftbench.results.store import Store
    from peftbench.tuning import Search

GridFile = Annotated[
    str,
    typer.Argument(
        help="name of a ready grid, or a grid file (TOML); write ./NAME to force a file",
        metavar="GRID",
        autocompletion=shell_completion.complete_grids,
    ),
]
MaybeGrid = Annotated[
    str | None,
    typer.Argument(
        help="a ready grid, or a grid file; without it, the whole store",
        metavar="[GRID]",
        autocompletion=shell_completion.complete_grids,
    ),
]
StoreDir = Annotated[Path, typer.Option("--store", help="folder of results", metavar="DIR")]


def _folder(path: Path | None) -> Path | None:
    """The folder of `--data`. Raises `UserError` if it does not exist."""
    if path is not None and not path.is_dir():
        raise UserError(f"--data {path}: {'not a folder' if path.exists() else 'no such folder'}")
    return path


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="local mirror of data sets, read before the Hub",
        metavar="DIR",
        envvar="PEFTBENCH_DATA",
        callback=_folder,
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="model to use instead of the grid's; may be repeated",
        autocompletion=shell_completion.complete_models,
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="maximum number of training rows and of test rows per run")
]
Size = Annotated[
    str | None, typer.Option("--size", help="name of another edition of the grid, such as pocket", metavar="NAME")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file with your own tasks, methods or metrics", metavar="FILE"),
]
WeightSets = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        help="PSCP weights: a named set or your own TOML file, instead of all named sets; may be repeated",
        metavar="NAME|FILE",
    ),
]
Workers = Annotated[
    int, typer.Option(min=0, help="number of processes; 0: one per GPU, or one per usable core if memory allows")
]
Timeout = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        help="time limit per run, such as 90s, 10m or 2h; default: ten times its forecast, at least 10m",
        metavar="TIME",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads per process; results repeat only with the same number")]


def _launcher(name: str) -> str:
    """The name of a known launcher. Raises `UnknownNameError`."""
    if name != "local":
        from peftbench.launch import launcher

        launcher(name)
    return name


LauncherName = Annotated[
    str,
    typer.Option(
        "--launcher",
        help="where the runs are done",
        metavar="NAME",
        callback=_launcher,
        autocompletion=shell_completion.complete_launchers,
    ),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="run failed runs again")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
RESULTS = Path("results")


def plug(plugins: list[Path] | None) -> tuple[Path, ...]:
    """Import the plugin files and return their full paths."""
    files = tuple(path.resolve() for path in plugins or ())
    for path in files:
        load_plugin(path)
    return files


def open_store(root: Path) -> "Store":
    """The store at a folder, which need not exist yet."""
    from peftbench.results.store import Store

    return Store(root)


def snapshot_of(root: Path, *, result_files_only: bool = False) -> "Store":
    """A snapshot of the store at a folder, for commands that write no results. The folder need not exist."""
    from peftbench.results.store import Store

    return Store(root, snapshot=True, result_files_only=result_files_only)


def held_store(root: Path, *, result_files_only: bool = False) -> "Store":
    """As `snapshot_of`. Raises `UserError` if there is no such folder."""
    return snapshot_of(root, result_files_only=result_files_only).existing()


def grid_search(
    grid: str, place: "Store", *, models: list[str] | None, limit: int | None, size: str | None
) -> "Search":
    """The runs that a grid asks for, given the results in a store; the other arguments are those of `peftbench.run`."""
    from peftbench.tuning import search

    say_shadowed(grid, models or ())
    return search(grid, place.run_results(), models or (), limit, size)


def say_shadowed(grid: str, models: Sequence[str]) -> None:
    """Print a line where a bundled grid or model is used although a file or folder has the same name."""
    from peftbench.cli.output import say
    from peftbench.grid.expand import ready
    from peftbench.models import known_models

    for kind, names, given in (("ready grid", ready(), [grid]), ("model", known_models(), models)):
        for name in given:
            if name in names and Path(name).exists():
                say(f"{name}: using peftbench's {kind}; write ./{name} for the file or folder here", stderr=True)


def ids(specs: "list[RunSpec]") -> set[str]:
    """The ids of runs."""
    return {spec.id for spec in specs}


def pair(text: str, option: str = "--set") -> tuple[str, Any]:
    """Split KEY=VALUE; the value is read as in a grid file, or as text if it is not TOML."""
    key, sign, value = text.partition("=")
    if not sign:
        raise UserError(f"{option} {text}: give KEY=VALUE")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def size_of(text: str) -> Any:
    """A number of training rows, or `all`."""
    if text != "all" and not (text.isascii() and text.isdigit()):
        raise UserError(f"--size {text} is not valid: give a number of training rows, or all")
    return text if text == "all" else int(text)
