"""The command `verify`: check a store."""

from pathlib import Path
from typing import Annotated

import typer

from peftbench.cli.options import RESULTS, AsJson, open_store
from peftbench.cli.output import console, print_json, print_rows, say


def verify(
    store: Annotated[Path, typer.Argument(help="folder of results", metavar="STORE")] = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a store.

    Files are compared with their digests, and every result is checked for consistency.

    Exit status 1: something is damaged. Runs with a damaged file count as missing, so the same grid runs them again.
    """
    from rich.progress import track

    from peftbench.results.verify import Verification, verify_store

    place = open_store(store).existing()
    found = Verification()
    shown = console(stderr=True)
    paths = place.paths()
    for _ in track(verify_store(place, found), "verifying", len(paths), console=shown, transient=True):
        pass
    if as_json:
        print_json(
            {
                "intact": found.intact,
                "whole": found.whole,
                "without_digests": found.unsealed,
                "damaged": {str(path): why for path, why in found.damaged.items()},
                "run_again": [str(path) for path in found.again],
            }
        )
    else:
        if found.damaged:
            print_rows(["damaged", "what is wrong"], [[str(path), why] for path, why in found.damaged.items()])
        say(f"{found.whole} of {len(paths)} runs are intact; {len(found.again)} will be run again with their grid")
        if found.unsealed:
            say(f"{found.unsealed} were written before results had digests; only their consistency was checked")
    if not found.intact:
        raise typer.Exit(1)
