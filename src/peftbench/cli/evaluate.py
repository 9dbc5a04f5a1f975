"""The command `evaluate`: score models that were trained elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

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
    plug,
    size_of,
)
from peftbench.cli.run_with_progress import run_and_report


def evaluate(
    adapter: Annotated[
        list[Path],
        typer.Option(help="folder of an adapter, or of a fully trained model; may be repeated", metavar="DIR"),
    ],
    model: Annotated[str, typer.Option(help="base model: an alias, a directory, or a Hub id")],
    tasks: Annotated[str, typer.Option(help="tasks or suites, separated by commas", metavar="A,B")],
    quantise: Annotated[str | None, typer.Option(help="quantise the base model to nf4 or int8", metavar="HOW")] = None,
    store: StoreDir = RESULTS,
    data: DataDir = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="number of training rows of the leaderboard to place it on; may be repeated; default: all"),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="seed of that leaderboard; may be repeated; default: 0")
    ] = None,
    test_rows: Annotated[int | None, typer.Option(min=1, help="maximum number of test rows; default: all")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="maximum tokens of prompt and target; default: 512")
    ] = None,
    any_base: Annotated[
        bool, typer.Option("--any-base", help="do not check that the adapter was made for this base model")
    ] = False,
    plugin: Plugins = None,
    workers: Workers = 0,
    threads: Threads = 1,
    timeout: Timeout = None,
    launcher: LauncherName = "local",
    retry_failed: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Score adapters that were trained elsewhere.

    They are stored as ordinary runs. The same command resumes.

    Exit status as for `run`: 0 if every run has a result, 1 if some failed or are missing, 2 if none has a result.
    """
    from peftbench.grid.trained_elsewhere import adapters_grid

    plug(plugin)
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
    run_and_report(
        grid,
        store,
        data=data,
        plugins=plugin or (),
        launcher=launcher,
        workers=workers,
        threads=threads,
        timeout=timeout,
        retry_failed=retry_failed,
        as_json=as_json,
    )
