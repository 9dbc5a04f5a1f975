"""Cells (task and seed): on which of them a method has a score, and why it has none on the others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from peftbench.metrics import bounds
from peftbench.stats.intervals import Run, Scores

if TYPE_CHECKING:
    import pandas as pd

Ended = tuple[str, object, bool]
"""Status of a run, its error, and whether it has a score that counts."""


@dataclass(frozen=True)
class MissingCell:
    """A cell that a method lacks: `why` is the status of its run, `absent` without a run, or another reason."""

    task: str
    seed: int
    why: str
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.task}, seed {self.seed}: {self.why}" + (f" ({self.error})" if self.error else "")


def cells_of(runs: "pd.DataFrame") -> list[tuple[str, int]]:
    return sorted(set(zip(runs["task"], map(int, runs["seed"]), strict=True)))


def good_of(runs: "pd.DataFrame") -> "pd.DataFrame":
    return runs[(runs["status"] == "ok") & runs["score"].notna()]


def missing_of(runs: "pd.DataFrame", required: Iterable[tuple[str, int]]) -> tuple[MissingCell, ...]:
    """Return the required cells for which `runs`, all of one method, do not have exactly one score."""
    held: dict[tuple[str, int], list[Ended]] = {}
    scored = (runs["status"] == "ok") & runs["score"].notna()
    for task, seed, *ended in zip(*(runs[name] for name in ("task", "seed", "status", "error")), scored, strict=True):
        held.setdefault((task, int(seed)), []).append((ended[0], ended[1], ended[2]))
    found = (_missing(task, seed, held.get((task, seed), [])) for task, seed in required)
    return tuple(cell for cell in found if cell is not None)


def _missing(task: str, seed: int, here: Sequence[Ended]) -> MissingCell | None:
    """Return the cell with the reason why it is missing, or `None` if it has exactly one score."""
    good = sum(scored for *_, scored in here)
    if good == 1:
        return None
    if good:
        return MissingCell(task, seed, f"{good} runs for one cell, select one")
    if not here:
        return MissingCell(task, seed, "absent")
    status, error, _ = here[-1]
    first_line = error.strip().partition("\n")[0] if isinstance(error, str) else ""
    return MissingCell(task, seed, "no score" if status == "ok" else status, first_line or None)


def scores_of(runs: "pd.DataFrame", missing: Iterable[MissingCell]) -> Scores:
    """Return the runs by task and seed, without the tasks that have a missing cell."""
    lacking = {cell.task for cell in missing}
    scores: Scores = {}
    good = good_of(runs)
    rows, metrics = (good.get(name, [None] * len(good)) for name in ("row_scores", "metric"))
    for task, seed, score, error, own, metric in zip(
        good["task"], good["seed"], good["score"], good["score_error"], rows, metrics, strict=True
    ):
        if task not in lacking:
            scores.setdefault(task, {})[int(seed)] = Run(
                score, error, own if isinstance(own, np.ndarray) else None, bounds(metric)
            )
    return dict(sorted(scores.items()))
