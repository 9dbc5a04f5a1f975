"""Train sizes: their order, and which sizes of a grid can share an axis of training rows."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

Sizes = tuple[tuple[str, int], ...]
"""Pairs of a size's name in the grid and its number of rows, fewest first."""


def in_order(size: str) -> tuple[float, str]:
    """Return a sort key for sizes: numbers by value, then other names."""
    return (float(size) if size.isdigit() else math.inf, size)


def axes(good: "pd.DataFrame") -> Iterator[tuple[tuple[str, ...], Sizes, tuple[str, ...]]]:
    """Yield tasks, their sizes, and the omitted sizes with reasons: first all tasks together, then each task.

    `good`: runs with a score, of one model and machine class, with `size` as text. The number of rows of a size is the
    number trained on (`train_rows`), without the held-out validation rows, whose number is the same at every size. If
    `train_rows` is unknown, a numeric size is used as the number of rows. Only axes with at least two sizes are
    yielded.
    """
    found = {str(task): _of_task(str(task), runs) for task, runs in good.groupby("task")}
    if len(found) > 1:
        sizes, left_out = _together({task: dict(sizes) for task, (sizes, _) in found.items()})
        if len(sizes) > 1:
            yield tuple(found), sizes, left_out
    for task, (sizes, left_out) in found.items():
        if len(sizes) > 1:
            yield (task,), sizes, left_out


def _of_task(task: str, runs: "pd.DataFrame") -> tuple[Sizes, tuple[str, ...]]:
    sizes: dict[int, str] = {}
    left_out = []
    for size, rows in sorted(_rows(runs).items(), key=lambda each: in_order(each[0])):
        if len(rows) != 1:
            known = " and ".join(f"{each:,}" for each in sorted(rows)) or "an unknown number of"
            left_out.append(f"size {size} of {task} is left out: runs have {known} training rows")
        elif (number := rows.copy().pop()) in sizes:
            left_out.append(
                f"size {size} of {task} is left out: it has the same {number:,} rows as size {sizes[number]}"
            )
        else:
            sizes[number] = size
    return tuple((size, number) for number, size in sorted(sizes.items())), tuple(left_out)


def _rows(runs: "pd.DataFrame") -> dict[str, set[int]]:
    """Return the numbers of training rows by size."""
    found: dict[str, set[int]] = {}
    for size, rows in zip(runs["size"], runs["train_rows"], strict=True):
        held = found.setdefault(str(size), set())
        if rows == rows:
            held.add(int(rows))
    return {size: rows or ({int(size)} if size.isdigit() else set()) for size, rows in found.items()}


def _together(found: Mapping[str, Mapping[str, int]]) -> tuple[Sizes, tuple[str, ...]]:
    """Return the sizes that every task has with the same number of rows, so that a mean over tasks is meaningful."""
    sizes, left_out = [], []
    for size in sorted({size for held in found.values() for size in held}, key=in_order):
        lacking = [task for task, held in found.items() if size not in held]
        rows = {held[size] for held in found.values() if size in held}
        if lacking:
            left_out.append(f"size {size} is left out of the mean: {', '.join(lacking)} has no such size")
        elif len(rows) > 1:
            left_out.append(f"size {size} is left out of the mean: {min(rows):,} to {max(rows):,} rows by task")
        else:
            sizes.append((size, rows.pop()))
    return tuple(sorted(sizes, key=lambda each: each[1])), tuple(left_out)
