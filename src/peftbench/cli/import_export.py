"""Commands that exchange results: import published figures, export runs."""

from pathlib import Path
from typing import Annotated

import typer

from peftbench.cli.options import (
    RESULTS,
    AsJson,
    LimitOption,
    MaybeGrid,
    Models,
    Plugins,
    Size,
    StoreDir,
    grid_search,
    held_store,
    open_store,
    plug,
    snapshot_of,
)
from peftbench.cli.options import ids as ids_of
from peftbench.cli.output import print_json, say, warn_damaged
from peftbench.core.registry import UserError


def import_published(
    what: Annotated[
        list[str],
        typer.Argument(
            help="peft-bench or peft-metamathqa, which are bundled; result files (JSON) of peft's method comparison; "
            "CSV files of such figures; or folders of these files",
            metavar="NAME|FILE|DIR...",
        ),
    ],
    store: StoreDir = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Import published figures into a store.

    Reports show them separately from measured results.
    """
    from peftbench.results import published

    found = published.gather(what)
    for reason in found.left_out:
        say(f"left out: {reason}", stderr=True)
    if not found.rows:
        raise UserError("nothing to import: these files have no successful run")
    open_store(store).open()
    paths = published.keep_published(store, found)
    count = sum(map(len, found.rows.values()))
    if as_json:
        print_json({"figures": count, "files": [str(path) for path in paths], "left_out": found.left_out})
        return
    say(f"kept in {store / published.FOLDER}: {count} published figures")


def export(
    grid: MaybeGrid = None,
    *,
    to: Annotated[
        Path, typer.Option("--to", help="file; or a folder for figures, peft and model-index", metavar="PATH")
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="csv, parquet, latex, figures, peft or model-index; default: from the suffix of --to"
        ),
    ] = None,
    store: StoreDir = RESULTS,
    model: Models = None,
    limit: LimitOption = None,
    size: Size = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Export runs as CSV, parquet, LaTeX or figures.

    Other formats write one file per run: peft's JSON, or the metadata of a model card.
    """
    from peftbench.report.exports import export_runs as write

    plug(plugin)
    place = snapshot_of(store)
    search = grid_search(grid, place, models=model, limit=limit, size=size) if grid else None
    wanted = ids_of(search.asked()) if search else None
    held_store(store)
    written = write(place, to, form, wanted)
    warn_damaged(place.damaged)
    if as_json:
        print_json({"files": [str(path) for path in written]})
        return
    say(f"wrote {to}" if written == [to] else f"wrote into {to}, files: {len(written)}")
