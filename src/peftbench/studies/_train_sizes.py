"""Train sizes: their order, and which of a grid can stand on one axis of training rows."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

Sizes = tuple[tuple[str, int], ...]
"""What a grid calls a size, and how many rows that is; fewest first."""


def in_order(size: str) -> tuple[float, str]:
    """A key to sort sizes by: numbers by their value, then others."""
    return (float(size) if size.isdigit() else math.inf, size)


def axes(good: "pd.DataFrame") -> Iterator[tuple[tuple[str, ...], Sizes, tuple[str, ...]]]:
    """Tasks, their sizes, and the sizes that are left out with the reason: all tasks together, then each.

    `good`: runs that have a score, of one model and machine class, with `size` as text. The rows of a size are those
    trained on (`train_rows`), without the held-out validation rows, which are as many at every size. Where they are not
    known, a size that is a number counts as that. Only what has two sizes or more is returned.
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
            left_out.append(f"size {size} of {task} is left out: these are the {number:,} rows of size {sizes[number]}")
        else:
            sizes[number] = size
    return tuple((size, number) for number, size in sorted(sizes.items())), tuple(left_out)


def _rows(runs: "pd.DataFrame") -> dict[str, set[int]]:
    """By size, the numbers of rows that runs were trained on."""
    found: dict[str, set[int]] = {}
    for size, rows in zip(runs["size"], runs["train_rows"], strict=True):
        held = found.setdefault(str(size), set())
        if rows == rows:
            held.add(int(rows))
    return {size: rows or ({int(size)} if size.isdigit() else set()) for size, rows in found.items()}


def _together(found: Mapping[str, Mapping[str, int]]) -> tuple[Sizes, tuple[str, ...]]:
    """The sizes that every task has, with as many rows in each: the mean over tasks is then of one thing."""
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
