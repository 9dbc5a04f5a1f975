"""Which differences a grid will be able to tell apart, and what would be needed to see one point."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from peftbench.profiling.forecast import CellForecast
from peftbench.stats.power import Design, detectable, seeds_and_rows_needed

GAP = 1.0
"""Points of score that one would like to tell apart."""


@dataclass(frozen=True)
class Resolution:
    """What the leaderboard of a model and train size will be able to tell.

    `pair` and `board` are in points: the differences found with 80 % probability between two methods chosen before,
    and among all with Holm's correction (by its first and strictest step). `needed_seeds`, `needed_rows` (on each task)
    would find `GAP` between two. `measured_spread`: the spread over seeds is that of finished runs, not assumed.
    """

    model: str
    size: str
    methods: int
    seeds: int
    test_rows: tuple[int, ...]
    spread: float
    measured_spread: bool
    pair: float
    board: float
    needed_seeds: int
    needed_rows: int


def resolutions(cells: Iterable[CellForecast], spread: float, measured: bool) -> list[Resolution]:
    """One for each model and train size with two methods or more, from the cells whose test rows are known."""
    groups: dict[tuple[str, str], list[CellForecast]] = {}
    for cell in cells:
        if cell.test_rows and cell.status in ("fits", "not known"):
            groups.setdefault((cell.model, cell.size), []).append(cell)
    found = []
    for (model, size), held in groups.items():
        methods = len({cell.method for cell in held})
        if methods < 2:
            continue
        rows = tuple({cell.task: cell.test_rows or 0 for cell in held}.values())
        design = Design(min(cell.seeds for cell in held), rows, spread, methods=methods)
        board = detectable(replace(design, pairs=methods * (methods - 1) // 2))
        seeds, count = seeds_and_rows_needed(design, GAP)
        held_by = (model, size, methods, design.seeds, rows, spread, measured)
        found.append(Resolution(*held_by, detectable(design), board, seeds, count))
    return found
