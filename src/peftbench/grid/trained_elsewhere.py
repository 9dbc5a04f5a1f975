"""The grid that scores models trained elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftbench.methods._saved_files import check_base, examine
from peftbench.models import find


def adapters_grid(
    adapters: Sequence[Path],
    model: str,
    tasks: Sequence[str],
    *,
    quantise: str | None = None,
    sizes: Sequence[int | str] = ("all",),
    seeds: Sequence[int] = (0,),
    test_rows: int | None = None,
    max_length: int | None = None,
    any_base: bool = False,
) -> dict[str, Any]:
    """A grid of adapters, or fully trained models, on tasks.

    Args:
        adapters: their folders.
        model: their base: an alias, a directory or a Hub id.
        tasks: tasks or suites.
        quantise: quantise the base to `nf4` or `int8`.
        sizes: training rows of the leaderboards that they are to stand on.
        seeds: seeds of those leaderboards.
        test_rows: at most so many test rows.
        max_length: tokens of prompt and target.
        any_base: do not ask whether they were made for this base.

    Raises:
        UserError: a folder without a trained model, or one that was made for another base.
    """
    for folder in adapters:
        kept = examine(folder)
        if not any_base:
            check_base(kept, find(model))
    more = {"any_base": True} if any_base else {}
    return {
        "name": "evaluate",
        "models": [{"use": model, "quantise": quantise} if quantise else model],
        "methods": [{"use": "saved", "folder": str(folder)} | more for folder in adapters],
        "tasks": list(tasks),
        "sizes": list(sizes),
        "seeds": list(seeds),
        "train": {"max_length": max_length} if max_length else {},
        "eval": {"test_rows": test_rows} if test_rows else {},
    }
