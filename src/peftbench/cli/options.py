"""Options that several verbs share, and what is made of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftbench.registry import load_plugin

if TYPE_CHECKING:
    from peftbench.spec import RunSpec
    from peftbench.store import Store
    from peftbench.tuning import Search

GridFile = Annotated[Path, typer.Argument(help="grid file (TOML)", metavar="GRID")]
MaybeGrid = Annotated[Path | None, typer.Argument(help="grid file; without it, the whole store", metavar="[GRID]")]
StoreDir = Annotated[Path, typer.Option("--store", help="folder of results", metavar="DIR")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data", help="local mirror of data sets, read before the Hub", metavar="DIR", envvar="PEFTBENCH_DATA"
    ),
]
Models = Annotated[list[str] | None, typer.Option("--model", help="instead of the grid's models; may be repeated")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="at most so many training rows, and test rows, a run")
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
Workers = Annotated[int, typer.Option(min=0, help="processes; 0: one a GPU, else one a core")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each; part of what makes results repeatable")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="run again what did not end well")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
RESULTS = Path("results")


def plug(plugins: list[Path] | None) -> tuple[Path, ...]:
    """Import the plugin files; their full paths."""
    files = tuple(path.resolve() for path in plugins or ())
    for path in files:
        load_plugin(path)
    return files


def open_store(root: Path) -> "Store":
    """The store at a folder, which need not be there yet."""
    from peftbench.store import Store

    return Store(root)


def searched(grid: Path, models: list[str] | None, limit: int | None, place: "Store") -> "Search":
    """What a grid file asks for, with other models if any are given, and no more rows than `limit`."""
    from peftbench.tuning import search

    return search(grid, {id_: result for id_, (result, _) in place.results().items()}, models or (), limit)


def expanded(grid: Path, models: list[str] | None, limit: int | None, place: "Store") -> "list[RunSpec]":
    """The runs of a grid file, as far as the results in a store determine them."""
    return searched(grid, models, limit, place).asked()


def ids(specs: "list[RunSpec]") -> set[str]:
    """The ids of runs."""
    return {spec.id for spec in specs}
