"""Options that several verbs share, and what is made of them."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftbench.core.registry import UserError, load_plugin

if TYPE_CHECKING:
    from peftbench.core.spec import RunSpec
    from peftbench.results.store import Store
    from peftbench.tuning import Search

GridFile = Annotated[
    str, typer.Argument(help="name of a ready grid, or a grid file (TOML); ./NAME is a file", metavar="GRID")
]
MaybeGrid = Annotated[
    str | None, typer.Argument(help="a ready grid, or a grid file; without it, the whole store", metavar="[GRID]")
]
StoreDir = Annotated[Path, typer.Option("--store", help="folder of results", metavar="DIR")]


def _folder(path: Path | None) -> Path | None:
    """A folder that has to be there. Raises `UserError`."""
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
Models = Annotated[list[str] | None, typer.Option("--model", help="instead of the grid's models; may be repeated")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="at most so many training rows, and test rows, a run")
]
Size = Annotated[
    str | None, typer.Option("--size", help="another edition that the grid has, such as pocket", metavar="NAME")
]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="a Python file of units of your own", metavar="FILE")
]
WeightSets = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        help="weights of PSCP, a named set or a TOML file of your own, instead of all named sets; may be repeated",
        metavar="NAME|FILE",
    ),
]
Workers = Annotated[
    int, typer.Option(min=0, help="processes; 0: one a GPU, else one a core that may be used, as far as memory goes")
]
Timeout = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        help="longest time of a run, such as 90s, 10m or 2h; default: ten times its forecast, at least 10m",
        metavar="TIME",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each; part of what makes results repeatable")]


def _launcher(name: str) -> str:
    """The name of a launcher that there is. Raises `UnknownNameError`."""
    if name != "local":
        from peftbench.launch import launcher

        launcher(name)
    return name


LauncherName = Annotated[
    str, typer.Option("--launcher", help="where the runs are done", metavar="NAME", callback=_launcher)
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="run again what did not end well")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
RESULTS = Path("results")


def seconds(given: str | None) -> float | None:
    """The seconds of `--timeout`; a number alone is one of seconds. Raises `UserError`."""
    from peftbench.cli.quantities import quantity

    return quantity("--timeout", f"{given}s" if given and given.isdigit() else given, "seconds")


def plug(plugins: list[Path] | None) -> tuple[Path, ...]:
    """Import the plugin files; their full paths."""
    files = tuple(path.resolve() for path in plugins or ())
    for path in files:
        load_plugin(path)
    return files


def open_store(root: Path) -> "Store":
    """The store at a folder, which need not be there yet."""
    from peftbench.results.store import Store

    return Store(root)


def snapshot_of(root: Path, *, result_files_only: bool = False) -> "Store":
    """The store at a folder, which need not be there, for verbs that write no results: it is read once."""
    from peftbench.results.store import Store

    return Store(root, snapshot=True, result_files_only=result_files_only)


def held_store(root: Path, *, result_files_only: bool = False) -> "Store":
    """As `snapshot_of`. Raises `UserError` if there is no such folder."""
    if not root.is_dir():
        raise UserError(
            f"store {root}: {'not a folder' if root.exists() else 'no such folder'}; give one with --store DIR"
        )
    return snapshot_of(root, result_files_only=result_files_only)


Cut = tuple[list[str] | None, int | None, str | None]
"""Other models than the grid's, at most so many rows, and the edition of the grid."""


def grid_search(grid: str, cut: Cut, place: "Store") -> "Search":
    """What a grid asks for, given what a store holds."""
    from peftbench.tuning import search

    models, limit, size = cut
    _say_shadowed(grid, models or ())
    return search(grid, place.run_results(), models or (), limit, size)


def _say_shadowed(grid: str, models: Sequence[str]) -> None:
    """A line for a file or folder that is called as something of ours, which is meant then."""
    from peftbench.cli.output import say
    from peftbench.grid.expand import ready
    from peftbench.models import known_models

    for kind, names, given in (("ready grid", ready(), [grid]), ("model", known_models(), models)):
        for name in given:
            if name in names and Path(name).exists():
                say(f"{name}: the {kind} of peftbench; what lies here is ./{name}", stderr=True)


def expanded(grid: str, cut: Cut, place: "Store") -> "list[RunSpec]":
    """The runs of a grid, as far as the results in a store determine them."""
    return grid_search(grid, cut, place).asked()


def ids(specs: "list[RunSpec]") -> set[str]:
    """The ids of runs."""
    return {spec.id for spec in specs}


def pair(text: str, option: str = "--set") -> tuple[str, Any]:
    """A key and its value as in a grid file; a value that is not TOML is text."""
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
        raise UserError(f"--size {text}: a number of training rows, or all")
    return text if text == "all" else int(text)
