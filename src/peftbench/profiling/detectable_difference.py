"""Detectable differences of a grid, and the seeds and test rows needed to detect one point."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from peftbench.profiling.forecast import CellForecast
from peftbench.stats.power import Design, detectable, seeds_and_rows_needed

GAP = 1.0
"""Target difference in points of score."""


@dataclass(frozen=True)
class Resolution:
    """Detectable differences on the leaderboard of a model and train size.

    `pair` and `board`: the points detected with 80 % power between two methods chosen in advance, and among all methods
    at the strictest step of Holm's correction. `needed_seeds`, `needed_rows` (per task): to detect `GAP` between two
    methods. `measured_spread`: the spread over seeds is from finished runs, not assumed.
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
    """Return one for each model and train size with at least two methods, from cells with known test rows."""
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
