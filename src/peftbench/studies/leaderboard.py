"""Leaderboards from the table of runs: one per model, train size and machine class.

Methods are compared over the same cells (task and seed) or not at all: a method that lacks a cell which another has
gets no mean, no rank and no PSCP, and its row says which cells are missing and why. Variances over seeds are moderated
by those of the other methods (`peftbench.stats.variance_shrinkage`).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from peftbench.core.costs import COUNTED, MEASURED
from peftbench.core.jsonable import to_json
from peftbench.stats.intervals import Interval, Scores, cell, over_tasks
from peftbench.stats.paired_tests import Comparison, compare_pairs, verdicts
from peftbench.stats.power import Design, Needed, to_show
from peftbench.stats.variance_shrinkage import moderated
from peftbench.studies._chance_level import counted
from peftbench.studies._missing_cells import MissingCell, cells_of, good_of, missing_of, scores_of
from peftbench.studies._pscp_costs import Pscp, full_fine_tuning, paid, penalised, pscp_constants
from peftbench.studies._pscp_weights import Weights, WeightSet, weight_sets
from peftbench.studies._run_conditions import Conditions, conditions, fewer
from peftbench.studies._setting_selection import compared_runs
from peftbench.studies._train_sizes import in_order
from peftbench.studies.pscp_sensitivity import Sweep, sweeps

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LeaderboardRow:
    """A method on a leaderboard.

    `rank` is 1 plus the number of methods in `beaten_by`: those that are significantly better after Holm's correction
    over the pairs of the board. `tied_with`: methods that are not shown to differ. `scores` has the mean over seeds by
    task, without tasks that have a missing cell. `at_chance`: task to the number of its runs at chance, if there are
    any (`peftbench.studies._chance_level`). `costs` has the keys of `COUNTED` and `MEASURED`; `None` means unknown.
    """

    method: str
    mean: Interval | None
    scores: Mapping[str, Interval]
    costs: dict[str, float | None]
    missing: tuple[MissingCell, ...]
    rank: int | None = None
    beaten_by: tuple[str, ...] = ()
    tied_with: tuple[str, ...] = ()
    at_chance: Mapping[str, int] = field(default_factory=dict)
    pscp: Mapping[str, Pscp] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaderboard:
    """Ranked methods of one model and train size, the highest mean first, methods without a mean last.

    - `tasks`: the main metric of each task.
    - `costs_refused`: why the costs of the rows cannot be compared, or `None`.
    - `unscored`: cells that were run and on which no method has a score; they are ignored.
    - `trials`: by method, the number of training settings from which the best was chosen on validation.
    - `weights`: the weight sets of the PSCPs; `constants`: the constants of each set, where known; `sensitivity`: which
      method leads at which exponents.
    - `comparisons`: every pair of methods that have a mean.
    - `conditions`: the conditions of the runs of each method; `fewer`: the number of training rows of tasks that have
      fewer than requested.
    - `to_show`: for each method that is not shown to differ from the first, what would be needed to show the observed
      difference, or why that is unknown.
    """

    model: str
    size: str
    machine_classes: tuple[str, ...]
    tasks: Mapping[str, str]
    seeds: tuple[int, ...]
    costs_refused: str | None
    unscored: tuple[MissingCell, ...]
    trials: Mapping[str, int]
    rows: tuple[LeaderboardRow, ...]
    weights: tuple[WeightSet, ...] = ()
    constants: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sensitivity: tuple[Sweep, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    conditions: Conditions = field(default_factory=dict)
    fewer: Mapping[str, int] = field(default_factory=dict)
    to_show: Mapping[str, Needed | str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Model, train size and machine classes in one line."""
        return f"{self.model}, {self.size} training rows, {' + '.join(self.machine_classes)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the leaderboard as plain JSON values; infinite degrees of freedom become `None`."""
        return dict(to_json(self))

    def to_frame(self) -> "pd.DataFrame":
        """Return a flat table with a line per method.

        Scores are in points with `_low`, `_high` and the standard `_error`; costs are in the units of their names; the
        conditions of the runs follow, several values separated by `;`.
        """
        import pandas as pd

        return pd.DataFrame([self._line(row) for row in self.rows])

    def _line(self, row: LeaderboardRow) -> dict[str, Any]:
        line: dict[str, Any] = {"model": self.model, "size": self.size}
        line |= {"machine_class": " + ".join(self.machine_classes), "rank": row.rank, "method": row.method}
        line |= {"tied_with": "; ".join(row.tied_with), "beaten_by": "; ".join(row.beaten_by)}
        for name, score in {"mean": row.mean, **{task: row.scores.get(task) for task in self.tasks}}.items():
            line |= {
                name: score and score.mean,
                f"{name}_low": score and score.low,
                f"{name}_high": score and score.high,
                f"{name}_error": score and score.standard_error,
            }
        made = self.conditions.get(row.method, {})
        line |= {fact: "; ".join(map(str, values)) for fact, values in made.items()}
        line["seeds"] = "; ".join(map(str, self.seeds))
        line |= dict(row.costs) | {f"pscp_{name}": score.value for name, score in row.pscp.items()}
        line["at_chance"] = "; ".join(f"{task} {count}" for task, count in row.at_chance.items())
        line["weights"] = "; ".join(map(str, self.weights))
        line["missing"] = "; ".join(map(str, row.missing))
        return line


def leaderboards(
    table: "pd.DataFrame", pool_machines: bool = False, weights: Iterable[Weights] = ()
) -> tuple[Leaderboard, ...]:
    """Return the leaderboards of a table with one row per run (`peftbench.table`), by model, size and machine class.

    If training settings were swept, each cell uses the best setting by validation
    (`peftbench.studies._setting_selection`).

    With `pool_machines`, runs of all machine classes share one leaderboard per model and size. Its scores are compared;
    its costs are not, if the classes differ. Published rows are left out.

    `weights` are the weight sets of PSCP, as `peftbench.pscp` takes them; the default is the named ones. Raises
    `UserError` for a set that cannot be used.
    """
    return of_compared(compared_runs(table), pool_machines, weights)


def of_compared(
    runs: "pd.DataFrame", pool_machines: bool = False, weights: Iterable[Weights] = ()
) -> tuple[Leaderboard, ...]:
    """Return the `leaderboards` of runs from `peftbench.studies._setting_selection.compared_runs`."""
    sets = weight_sets(weights)
    table, numbers = runs, ["forward_flops_512", *COUNTED, *MEASURED]
    table = table.reindex(columns=table.columns.union(numbers, sort=False)).astype(dict.fromkeys(numbers, float))
    keys = ["model", "size", *([] if pool_machines else ["machine_class"])]
    boards = [_board(group, table, sets) for _, group in table.groupby(keys)]
    return tuple(sorted(boards, key=lambda b: (b.model, b.machine_classes, in_order(b.size))))


def _board(group: "pd.DataFrame", table: "pd.DataFrame", sets: tuple[WeightSet, ...]) -> Leaderboard:
    good = good_of(group)
    cells = cells_of(good)
    machines = tuple(sorted(set(group["machine_class"])))
    refused = f"costs of different machine classes: {', '.join(machines)}" if len(machines) > 1 else None
    methods = {str(label): runs for label, runs in group.groupby("label")}
    missing = {label: missing_of(runs, cells) for label, runs in methods.items()}
    scores = {label: scores_of(runs, missing[label]) for label, runs in methods.items()}
    fixed = {label for label, runs in methods.items() if (good_of(runs)["trainable_parameters"] == 0).all()}
    means, by_task = _intervals(scores, {label for label in methods if scores[label] and not missing[label]}, fixed)
    rows = [_row(label, runs, missing[label], (means.get(label), by_task[label])) for label, runs in methods.items()]
    if refused:
        rows = [replace(row, costs=row.costs | dict.fromkeys(MEASURED)) for row in rows]
    compared = compare_pairs({row.method: scores[row.method] for row in rows if row.mean}, fixed=fixed)
    rows = [_ranked(row, compared) for row in rows]
    rows.sort(key=lambda row: (-row.mean.mean if row.mean else math.inf, row.method))
    board = Leaderboard(
        model=str(group["model"].iloc[0]),
        size=str(group["size"].iloc[0]),
        machine_classes=machines,
        tasks=dict(sorted(zip(good["task"], good["metric"], strict=True))),
        seeds=tuple(sorted({seed for _, seed in cells})),
        costs_refused=refused,
        unscored=missing_of(group, [cell for cell in cells_of(group) if cell not in cells]),
        trials={label: int(runs["trials"].max()) for label, runs in methods.items()},
        rows=tuple(rows),
        weights=sets,
        comparisons=compared,
        conditions=conditions(group),
        fewer=fewer(group),
        to_show=_to_show(rows, compared, good),
    )
    return _with_pscp(board, full_fine_tuning(table, good))


def _to_show(
    rows: Sequence[LeaderboardRow], compared: Sequence[Comparison], good: "pd.DataFrame"
) -> dict[str, Needed | str]:
    """Return the requirements to detect the difference of the first method to each one not shown to differ from it."""
    if not rows or rows[0].mean is None:
        return {}
    leader = rows[0].method
    tests = good.reindex(columns=["task", "test_rows"]).groupby("task")["test_rows"].min()
    pairs, methods = len(compared), sum(row.mean is not None for row in rows)
    found: dict[str, Needed | str] = {}
    for pair in compared:
        if leader not in (pair.first, pair.second) or pair.verdict != "tie":
            continue
        other = pair.second if pair.first == leader else pair.first
        if pair.variances is None:
            found[other] = "the error over test rows is not known"
        elif tests.isna().any():
            found[other] = "the number of test rows is not recorded"
        else:
            design = Design(pair.difference.seeds, tuple(map(int, tests)), pairs=pairs, methods=methods)
            found[other] = to_show(pair.difference.mean, pair.variances, design)
    return found


def _with_pscp(board: Leaderboard, full: Mapping[str, float] | str) -> Leaderboard:
    """Return the board with its PSCPs; `full` has the costs of full fine-tuning, or why they are unknown."""
    methods = {
        row.method: paid(row.mean.mean if row.mean else None, row.costs, _not_compared(row) or board.costs_refused)
        for row in board.rows
    }
    used = {each.name: pscp_constants(each, methods, full) for each in board.weights}
    scores = {each.name: penalised(each, methods, used[each.name]) for each in board.weights}
    moved = [sweeps(each, methods, used[each.name], scores[each.name]) for each in board.weights]
    return replace(
        board,
        rows=tuple(replace(row, pscp={name: held[row.method] for name, held in scores.items()}) for row in board.rows),
        constants={name: found for name, found in used.items() if not isinstance(found, str)},
        sensitivity=tuple(chain.from_iterable(moved)),
    )


def _not_compared(row: LeaderboardRow) -> str | None:
    """Return why a method has no mean, with its missing cells, or `None` if it has one."""
    if row.mean:
        return None
    return "not scored on every cell" + (f": {'; '.join(map(str, row.missing))}" if row.missing else "")


def _intervals(
    scores: Mapping[str, Scores], complete: Collection[str], fixed: Collection[str]
) -> tuple[dict[str, Interval], dict[str, dict[str, Interval]]]:
    """Return the intervals of the means of `complete` methods, and those of all methods by task, both moderated."""
    cells = {label: {task: cell(runs) for task, runs in held.items()} for label, held in scores.items()}
    means = moderated({label: over_tasks(list(cells[label].values())) for label in scores if label in complete}, fixed)
    by_task: dict[str, dict[str, Interval]] = {label: {} for label in scores}
    for task in sorted({task for held in cells.values() for task in held}):
        found = moderated({label: held[task] for label, held in cells.items() if task in held}, fixed)
        for label, estimate in found.items():
            by_task[label][task] = estimate.interval()
    return {label: estimate.interval() for label, estimate in means.items()}, by_task


def _row(
    label: str,
    runs: "pd.DataFrame",
    missing: tuple[MissingCell, ...],
    intervals: tuple[Interval | None, Mapping[str, Interval]],
) -> LeaderboardRow:
    mean, scores = intervals
    good = good_of(runs)
    costs = {cost: _number(good[cost].agg(how)) for cost, how in COUNTED.items()}
    # Measured costs are comparable only over the same cells.
    costs |= {cost: _number(good[cost].agg(how)) if mean else None for cost, how in MEASURED.items()}
    return LeaderboardRow(method=label, mean=mean, scores=scores, costs=costs, missing=missing, at_chance=counted(good))


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _ranked(row: LeaderboardRow, compared: Sequence[Comparison]) -> LeaderboardRow:
    if row.mean is None:
        return row
    told = verdicts(compared, row.method)
    better = tuple(other for other, verdict in told.items() if verdict == "loss")
    tied = tuple(other for other, verdict in told.items() if verdict == "tie")
    return replace(row, rank=1 + len(better), beaten_by=tuple(sorted(better)), tied_with=tuple(sorted(tied)))
