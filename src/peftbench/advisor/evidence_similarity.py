"""Evidence cells, each at a place (task, model, train size), and the similarity of places."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from peftbench.studies._run_labels import distinct, measured_runs, method_labels
from peftbench.studies._setting_selection import select

if TYPE_CHECKING:
    import pandas as pd

ROWS, PARAMETERS = 1e4, 1e9
"""Values used for an unknown number of training rows or parameters, since similarities need a number."""
SETTINGS = ("id", "status", "method", "method_arguments", "learning_rate", "unlike")
"""Columns that are kept from the row with the settings, if present."""
POOLED = 2.0
"""Degrees of freedom given to the pooled seed variance of all cells when it is combined with a cell's own."""


@dataclass(frozen=True)
class Place:
    """A task on a model at a train size. Unknown `kind` and `shape` are empty; unknown `rows` and `parameters` are 0.

    `variant` is a suffix in brackets for other differences: versions of a task, evaluation settings.
    """

    task: str
    kind: str
    model: str
    size: str
    rows: float = 0.0
    parameters: float = 0.0
    shape: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.task}, {self.size} rows, {self.model}" + (f" {self.variant}" if self.variant else "")

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """The fields that are equal for comparable runs."""
        return self.task, self.model, self.size, self.variant

    def kin(self, other: "Place") -> bool:
        """Return True if both have the same kind of task; a task of unknown kind is a kind by itself."""
        return (self.kind or self.task) == (other.kind or other.task)


@dataclass(frozen=True)
class KnownFacts:
    """Facts that a table lacks: kind and full number of training rows of tasks, shape and parameters of models."""

    kinds: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredMethod:
    """A method in a cell: its mean score over seeds, the known part of the variance of that mean, and its rows.

    `first` is the row of the lowest seed, from which settings are taken. `failed`: number of runs without a score.
    """

    method: str
    score: float
    variance: float
    seeds: int
    ids: tuple[str, ...]
    first: Mapping[str, Any]
    by_seed: Mapping[int, float] = field(default_factory=dict)
    failed: int = 0


@dataclass(frozen=True)
class EvidenceCell:
    """A place with the scores of methods, by label."""

    place: Place
    scores: Mapping[str, ScoredMethod]


def evidence_cells(table: "pd.DataFrame", known: KnownFacts, published: bool = False) -> tuple[EvidenceCell, ...]:
    """Return the cells of the runs of a table (`peftbench.table`), or of its published rows.

    The order of the cells does not depend on the order of the rows. For swept settings, a cell has those chosen on
    validation; seeds are averaged. Machines are pooled, since scores are comparable across them. Published rows of
    different sources or training data are different cells.
    """
    rows = table[table["status"] == "published"] if published else select(distinct(measured_runs(_kept(table))))
    if rows.empty:
        return ()
    if published:
        rows = rows.assign(plain_task=rows["task"], plain_model=rows["model"], size=_said(rows))
    rows = rows.assign(label=method_labels(rows), size=rows["size"].astype(str)).sort_values(["seed", "id"])
    pooled = _pooled(rows)
    found = [_cell(group, known, pooled) for _, group in rows.groupby(["model", "task", "size"])]
    return tuple(cell for cell in found if cell.scores)


def _kept(table: "pd.DataFrame") -> "pd.DataFrame":
    return table.assign(plain_task=table["task"], plain_model=table["model"])


def _said(rows: "pd.DataFrame") -> Any:
    """Return a text in place of the size of published cells: their training data and source."""
    return rows["train_data"].where(rows["train_data"] != "", "all") + " (" + rows["source"] + ")"


def _pooled(rows: "pd.DataFrame") -> float:
    """Return the variance between seeds, pooled over all cells; 0 if each cell has one seed."""
    groups = rows[rows["score"].notna()].groupby(["model", "task", "size", "label"])["score"]
    counts, spreads = groups.count() - 1, groups.var()
    freedom = int(counts.sum())
    return float((counts * spreads.fillna(0.0)).sum() / freedom) if freedom else 0.0


def _cell(group: "pd.DataFrame", known: KnownFacts, pooled: float) -> EvidenceCell:
    first = group.iloc[0]
    model, size = str(first["plain_model"]), str(first["size"])
    counted, totals = _numbers(group, "train_rows"), _numbers(group, "total_parameters")
    number = float(size) if size.isdigit() else (max(counted, default=0.0))
    plain = str(first["plain_task"])
    place = Place(
        task=plain,
        kind=known.kinds.get(plain, ""),
        model=model,
        size=size,
        rows=number or float(known.rows.get(plain, 0)),
        parameters=known.parameters.get(model) or min(totals, default=0.0),
        shape=known.shapes.get(model, ""),
        variant=f"{str(first['task']).removeprefix(plain)}{str(first['model']).removeprefix(model)}".strip(),
    )
    scores = {
        str(label): _scored(runs, pooled) for label, runs in group.groupby("label") if runs["score"].notna().any()
    }
    return EvidenceCell(place, scores)


def _numbers(group: "pd.DataFrame", column: str) -> list[float]:
    return [float(value) for value in group[column].dropna()] if column in group else []


def _scored(runs: "pd.DataFrame", pooled: float) -> ScoredMethod:
    good = runs[runs["score"].notna()]
    scores, n = [float(score) for score in good["score"]], len(good)
    # A variance from two or three seeds is a poor estimate, so it is combined with the pooled one.
    own = variance(scores) * (n - 1) if n > 1 else 0.0
    errors = [float(e) ** 2 for e in good["score_error"] if e is not None and not math.isnan(e)]
    return ScoredMethod(
        method=str(good["method"].iloc[0]),
        score=fmean(scores),
        variance=(own + POOLED * pooled) / (n - 1 + POOLED) / n + (fmean(errors) if errors else 0.0),
        seeds=n,
        ids=tuple(map(str, good["id"])),
        first={column: good.iloc[0][column] for column in SETTINGS if column in good},
        by_seed={
            int(seed): score
            for seed, score in zip(good["seed"], scores, strict=True)
            if seed == seed and seed is not None
        },
        failed=len(runs) - n,
    )


def nearness(first: Place, second: Place) -> float:
    """Return the similarity of two places in model and train size, in (0, 1], a positive definite kernel.

    It decreases with the distance of the logarithms of rows and of parameters, and is halved for another shape of model
    and for another model.
    """
    apart = abs(math.log10((first.rows or ROWS) / (second.rows or ROWS)))
    larger = abs(math.log10((first.parameters or PARAMETERS) / (second.parameters or PARAMETERS)))
    shape = 1.0 if first.shape == second.shape else 0.5
    model = 1.0 if first.model == second.model else 0.5
    return math.exp(-apart - larger / 2) * shape * model


def kernels(first: Sequence[Place], second: Sequence[Place]) -> tuple[list[list[float]], ...]:
    """Return the kernel matrices of the parts of the score model: constant; nearness; kind of task; task; cell."""

    def each(share: Any) -> list[list[float]]:
        return [[float(share(a, b)) for b in second] for a in first]

    return (
        [[1.0] * len(second) for _ in first],
        each(nearness),
        each(lambda a, b: nearness(a, b) * a.kin(b)),
        each(lambda a, b: nearness(a, b) * (a.task == b.task)),
        each(_same),
    )


def _same(a: Place, b: Place) -> float:
    """Return the cell kernel: 1 for the same cell, `nearness` for cells that differ only in the number of rows, else 0.

    Different cells with the same number of rows are from different sources and share only the other parts.
    """
    if a.cell == b.cell:
        return 1.0
    alike = (a.task, a.model, a.variant) == (b.task, b.model, b.variant)
    return nearness(a, b) * (alike and a.rows != b.rows)
