"""The verb about models trained elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from peftbench.cli.execute import run_and_report
from peftbench.cli.options import (
    RESULTS,
    AsJson,
    DataDir,
    LauncherName,
    Plugins,
    Retry,
    StoreDir,
    Threads,
    Timeout,
    Workers,
    open_store,
    plug,
    seconds,
    size_of,
)


def evaluate(
    adapter: Annotated[
        list[Path],
        typer.Option(help="folder of an adapter, or of a fully trained model; may be repeated", metavar="DIR"),
    ],
    model: Annotated[str, typer.Option(help="its base: an alias, a directory, or a Hub id")],
    tasks: Annotated[str, typer.Option(help="tasks or suites, with commas between", metavar="A,B")],
    quantise: Annotated[str | None, typer.Option(help="quantise the base to nf4 or int8", metavar="HOW")] = None,
    store: StoreDir = RESULTS,
    data: DataDir = None,
    size: Annotated[
        list[str] | None, typer.Option(help="training rows of the leaderboard it is to stand on; default: all")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="seeds of that leaderboard; default: 0")] = None,
    test_rows: Annotated[int | None, typer.Option(min=1, help="at most so many test rows; default: all")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="tokens of prompt and target; default: 512")] = None,
    any_base: Annotated[bool, typer.Option("--any-base", help="do not ask whether it was made for this base")] = False,
    plugin: Plugins = None,
    workers: Workers = 0,
    threads: Threads = 1,
    timeout: Timeout = None,
    launcher: LauncherName = "local",
    retry_failed: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Score adapters that were trained elsewhere.

    They become runs of the store like any other. The same command resumes.

    Exit status as of `run`: 0 if every run has a result, 1 if some failed or are missing, 2 if none has one.
    """
    from peftbench.grid.adapters import adapters_grid
    from peftbench.launch import Options
    from peftbench.tuning import search

    plugins = plug(plugin)
    grid = adapters_grid(
        adapter,
        model,
        [name for name in tasks.split(",") if name],
        quantise=quantise,
        sizes=[size_of(text) for text in size or ["all"]],
        seeds=seed or [0],
        test_rows=test_rows,
        max_length=max_length,
        any_base=any_base,
    )
    options = Options(data.resolve() if data else None, workers, threads, plugins=plugins, timeout=seconds(timeout))
    run_and_report(
        search(grid, {}),
        open_store(store),
        options,
        "evaluate",
        launcher=launcher,
        retry_failed=retry_failed,
        as_json=as_json,
    )
