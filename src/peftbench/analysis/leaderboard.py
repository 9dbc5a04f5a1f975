"""From the table of runs to leaderboards: one per model, train size and machine class.

Methods are compared over the same cells (task and seed) or not at all: one that lacks a cell that another has gets no
mean, no rank and no PSCP, and its row says which cells are missing and why. Every comparison is paired.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from peftbench.analysis.names import distinct, labels
from peftbench.analysis.pscp import pscp
from peftbench.analysis.select import select
from peftbench.analysis.stats import Interval, cell, difference, over_tasks

if TYPE_CHECKING:
    import pandas as pd

COUNTED = ("trainable_parameters", "total_parameters", "extra_forward_flops_512", "adapter_bytes")
"""Costs that are the same on every machine; the median over a method's runs is shown."""

MEASURED = {"peak_memory_bytes": "max", "eval_peak_memory_bytes": "max"} | dict.fromkeys(
    "train_seconds tokens_per_second eval_seconds latency_ms train_energy_joules eval_energy_joules "
    "retention_loss_change".split(),
    "mean",
)
"""Costs that belong to a machine, and how they are summed up over a method's runs."""

WEIGHTS = ("paper", "relative")

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


@dataclass(frozen=True)
class Pscp:
    """A PSCP, or the reason why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Row:
    """A method on a leaderboard.

    `rank` is 1 plus the number of methods in `beaten_by`: those that are better with the 95 % interval of the paired
    difference above 0. `tied_with` are the others of that rank. `scores` is by task, over the seeds of that task, and
    has no task of which a cell is missing. `costs` has the keys of `COUNTED` and `MEASURED`; `None`: not known.
    """

    method: str
    mean: Interval | None
    scores: Mapping[str, Interval]
    costs: dict[str, float | None]
    missing: tuple[MissingCell, ...]
    rank: int | None = None
    beaten_by: tuple[str, ...] = ()
    tied_with: tuple[str, ...] = ()
    pscp: Mapping[str, Pscp] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaderboard:
    """Ranked methods of one model and train size, best first, those without a rank last.

    `tasks` gives the main metric of each task; `costs_refused` says why the costs of the rows cannot be compared,
    `unscored` holds the cells that were run and on which no method has a score; they count for nothing. `trials` says
    among how many training settings each method's were chosen, on validation.
    """

    model: str
    size: str
    machine_classes: tuple[str, ...]
    tasks: Mapping[str, str]
    seeds: tuple[int, ...]
    costs_refused: str | None
    unscored: tuple[MissingCell, ...]
    trials: Mapping[str, int]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """The leaderboard as plain JSON values; infinite degrees of freedom become `None`."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    def to_frame(self) -> "pd.DataFrame":
        """One line per method, flat: scores in points with `_low` and `_high`, costs in the units of their names."""
        import pandas as pd

        return pd.DataFrame([self._line(row) for row in self.rows])

    def _line(self, row: Row) -> dict[str, Any]:
        line: dict[str, Any] = {"model": self.model, "size": self.size}
        line |= {"machine_class": " + ".join(self.machine_classes), "rank": row.rank, "method": row.method}
        line |= {"tied_with": "; ".join(row.tied_with), "beaten_by": "; ".join(row.beaten_by)}
        for name, score in {"mean": row.mean, **{task: row.scores.get(task) for task in self.tasks}}.items():
            line |= {
                name: score and score.mean,
                f"{name}_low": score and score.low,
                f"{name}_high": score and score.high,
            }
        line |= dict(row.costs) | {f"pscp_{name}": score.value for name, score in row.pscp.items()}
        line["missing"] = "; ".join(map(str, row.missing))
        return line


def leaderboards(table: "pd.DataFrame", pool_machines: bool = False) -> tuple[Leaderboard, ...]:
    """The leaderboards of a table with one row per run (`peftbench.table`), by model, size and machine class.

    Where training settings were swept, each cell has its best setting by validation (`peftbench.analysis.select`).

    With `pool_machines`, runs of all machine classes stand on one leaderboard per model and size. Its scores are
    compared; its costs are refused if the classes differ.
    """
    numbers = ["score", "score_error", "forward_flops_512", *COUNTED, *MEASURED]
    table = select(distinct(table))
    table = table.reindex(columns=table.columns.union(numbers, sort=False))
    table = table.astype(dict.fromkeys(numbers, float)).assign(label=labels(table), size=table["size"].astype(str))
    # Sums of floats depend on their order; the leaderboards must not depend on that of the runs.
    table = table.sort_values(["task", "seed", "id"])
    keys = ["model", "size", *([] if pool_machines else ["machine_class"])]
    boards = [_board(group, table) for _, group in table.groupby(keys)]
    return tuple(sorted(boards, key=lambda b: (b.model, b.machine_classes, _size_order(b.size))))


def _size_order(size: str) -> tuple[float, str]:
    return (float(size) if size.isdigit() else math.inf, size)


def _board(group: "pd.DataFrame", table: "pd.DataFrame") -> Leaderboard:
    good = _good(group)
    cells = _cells(good)
    machines = tuple(sorted(set(group["machine_class"])))
    refused = f"costs of different machine classes: {', '.join(machines)}" if len(machines) > 1 else None
    methods = {str(label): runs for label, runs in group.groupby("label")}
    missing = {label: _missing(runs, cells) for label, runs in methods.items()}
    scores = {label: _scores(runs, missing[label]) for label, runs in methods.items()}
    rows = [_row(label, runs, missing[label], scores[label]) for label, runs in methods.items()]
    if refused:
        rows = [replace(row, costs=row.costs | dict.fromkeys(MEASURED)) for row in rows]
    beaten_by = _beaten_by({row.method: scores[row.method] for row in rows if row.mean})
    reference = _reference(table, good)
    rows = [replace(_ranked(row, beaten_by), pscp=_penalised(row, refused, reference)) for row in rows]
    rows.sort(key=lambda row: (row.rank or math.inf, -row.mean.mean if row.mean else 0.0, row.method))
    return Leaderboard(
        model=str(group["model"].iloc[0]),
        size=str(group["size"].iloc[0]),
        machine_classes=machines,
        tasks=dict(sorted(zip(good["task"], good["metric"], strict=True))),
        seeds=tuple(sorted({seed for _, seed in cells})),
        costs_refused=refused,
        unscored=_missing(group, [cell for cell in _cells(group) if cell not in cells]),
        trials={label: int(runs["trials"].max()) for label, runs in methods.items()},
        rows=tuple(rows),
    )


def _cells(runs: "pd.DataFrame") -> list[tuple[str, int]]:
    return sorted(set(zip(runs["task"], map(int, runs["seed"]), strict=True)))


def _good(runs: "pd.DataFrame") -> "pd.DataFrame":
    return runs[(runs["status"] == "ok") & runs["score"].notna()]


def _missing(runs: "pd.DataFrame", required: Iterable[tuple[str, int]]) -> tuple[MissingCell, ...]:
    """The required cells of which `runs`, all of one method, do not have exactly one score."""
    missing = []
    for task, seed in required:
        here = runs[(runs["task"] == task) & (runs["seed"] == seed)]
        good = len(_good(here))
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


def _scores(runs: "pd.DataFrame", missing: Iterable[MissingCell]) -> Scores:
    """The runs by task and seed, without the tasks of which a cell is missing."""
    lacking = {cell.task for cell in missing}
    scores: Scores = {}
    good = _good(runs)
    for task, seed, *score in zip(good["task"], good["seed"], good["score"], good["score_error"], strict=True):
        if task not in lacking:
            scores.setdefault(task, {})[int(seed)] = (score[0], score[1])
    return dict(sorted(scores.items()))


def _row(label: str, runs: "pd.DataFrame", missing: tuple[MissingCell, ...], scores: Scores) -> Row:
    estimates = {task: cell(here) for task, here in scores.items()}
    complete = bool(scores) and not missing
    good = _good(runs)
    costs = {cost: _number(good[cost].median()) for cost in COUNTED}
    # Sums of what a machine measured compare like with like only over the same cells.
    costs |= {cost: _number(good[cost].agg(how)) if complete else None for cost, how in MEASURED.items()}
    return Row(
        method=label,
        mean=over_tasks(list(estimates.values())).interval() if complete else None,
        scores={task: estimate.interval() for task, estimate in estimates.items()},
        costs=costs,
        missing=missing,
    )


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _beaten_by(complete: Mapping[str, Scores]) -> dict[str, list[str]]:
    """For each method those that are better, with the interval of the paired difference on one side of 0."""
    beaten_by: dict[str, list[str]] = {method: [] for method in complete}
    for first, second in combinations(complete, 2):
        pairs = [difference(runs, complete[second][task]) for task, runs in complete[first].items()]
        interval = over_tasks(pairs).interval()
        if interval.low is not None and interval.low > 0:
            beaten_by[second].append(first)
        if interval.high is not None and interval.high < 0:
            beaten_by[first].append(second)
    return beaten_by


def _ranked(row: Row, beaten_by: Mapping[str, list[str]]) -> Row:
    if row.method not in beaten_by:
        return row
    better = beaten_by[row.method]
    tied = [m for m in beaten_by if m != row.method and len(beaten_by[m]) == len(better)]
    return replace(row, rank=1 + len(better), beaten_by=tuple(better), tied_with=tuple(tied))


def _reference(table: "pd.DataFrame", good: "pd.DataFrame") -> dict[str, float] | str:
    """What full fine-tuning costs on the tasks of the leaderboard, or why that is not known."""
    machine, model, tasks = good["machine_class"], good["model"], set(good["task"])
    same = table["machine_class"].isin(machine) & table["model"].isin(model) & table["task"].isin(tasks)
    full = _good(table[same & (table["method"] == "full")])
    if full.empty:
        return "full fine-tuning of this model was not run on this machine class"
    lacking = sorted(tasks - set(full["task"]))
    if lacking:
        return f"full fine-tuning has no run of {', '.join(lacking)}"
    return {
        "trainable_parameters": float(full["trainable_parameters"].median()),
        "extra_forward_tflops": float((full["forward_flops_512"] - full["extra_forward_flops_512"]).median()) / 1e12,
        "peak_memory_gb": float(full["peak_memory_bytes"].max()) / 1e9,
    }


def _penalised(row: Row, refused: str | None, reference: dict[str, float] | str) -> dict[str, Pscp]:
    """The row's PSCP by weight set, or why it has none."""
    costs = {
        "trainable_parameters": (row.costs["trainable_parameters"], 1.0),
        "extra_forward_tflops": (row.costs["extra_forward_flops_512"], 1e12),
        "peak_memory_gb": (row.costs["peak_memory_bytes"], 1e9),
    }
    known = {name: value / unit for name, (value, unit) in costs.items() if value is not None}
    scored = {}
    for weights in WEIGHTS:
        needed = reference if weights == "relative" else {}
        why_not = None if row.mean else "not scored on every cell"
        why_not = why_not or refused or (needed if isinstance(needed, str) else None)
        scored[weights] = Pscp(None, why_not)
        if row.mean and not why_not and not isinstance(needed, str):
            try:
                scored[weights] = Pscp(pscp(row.mean.mean, known, weights, needed))
            except ValueError as error:
                scored[weights] = Pscp(None, str(error))
    return scored


def _plain(value: object) -> object:
    """Mappings and sequences of JSON values, with `None` for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
