"""Cells, task and seed: which a method has a score on, and what is wrong with the others."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

Scores = dict[str, dict[int, tuple[float, float]]]
"""The runs of a method that have a score: task to seed to (score, standard error)."""


@dataclass(frozen=True)
class MissingCell:
    """A cell that a method lacks: `why` is a run's status, `absent` for no run, or what else is wrong."""

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
    """The required cells of which `runs`, all of one method, do not have exactly one score."""
    missing = []
    for task, seed in required:
        here = runs[(runs["task"] == task) & (runs["seed"] == seed)]
        good = len(good_of(here))
        if here.empty:
            missing.append(MissingCell(task, seed, "absent"))
        elif good > 1:
            missing.append(MissingCell(task, seed, f"{good} runs of one cell, select one"))
        elif not good:
            last = here.iloc[-1]
            why = "no score" if last["status"] == "ok" else str(last["status"])
            error = last["error"]
            first_line = error.strip().partition("\n")[0] if isinstance(error, str) else ""
            missing.append(MissingCell(task, seed, why, first_line or None))
    return tuple(missing)


def scores_of(runs: "pd.DataFrame", missing: Iterable[MissingCell]) -> Scores:
    """The runs by task and seed, without the tasks of which a cell is missing."""
    lacking = {cell.task for cell in missing}
    scores: Scores = {}
    good = good_of(runs)
    for task, seed, *score in zip(good["task"], good["seed"], good["score"], good["score_error"], strict=True):
        if task not in lacking:
            scores.setdefault(task, {})[int(seed)] = (score[0], score[1])
    return dict(sorted(scores.items()))
