"""What searches for settings found: the score that a number of trials buys, what was chosen, and every trial.

Of the first k trials of each search, the one with the lowest validation loss is taken; its own test score, on the one
seed of trials, is what k trials would have bought. Which trial that is never depends on a test score.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftbench.analysis.names import labels
from peftbench.analysis.plain import plain
from peftbench.analysis.select import trials_of

if TYPE_CHECKING:
    import pandas as pd

BOARD = ["model", "size", "machine_class"]
ENDINGS = ("ok", "pruned", "diverged", "out-of-memory", "failed")


@dataclass(frozen=True)
class Chosen:
    """The winner of a search, a method's on a task: `trial` counts from 1, and is `None` if none ended well.

    `settings` is in the words of a grid. `score` is its test score on the seed of trials; `endings` counts all trials.
    """

    method: str
    task: str
    trial: int | None
    settings: str
    validation_loss: float | None
    score: float | None
    endings: Mapping[str, int]


@dataclass(frozen=True)
class Bought:
    """What so many trials bought: the mean test score of each method over the tasks, and its rank, 1 the best.

    A method has neither where none of its first trials on a task ended well; equal scores share a rank.
    """

    trials: int
    scores: Mapping[str, float | None]
    ranks: Mapping[str, int | None]


@dataclass(frozen=True)
class Searches:
    """The searches of one model, train size and machine class.

    `trials` is by method, the fewest it has on a task; `bought` goes up to the number that all have. `log` has a row a
    trial, in order.
    """

    model: str
    size: str
    machine_class: str
    tasks: tuple[str, ...]
    trials: Mapping[str, int]
    bought: tuple[Bought, ...]
    chosen: tuple[Chosen, ...]
    log: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = plain(self)
        return found


def searches(table: "pd.DataFrame") -> tuple[Searches, ...]:
    """The searches in a table with one row a run (`peftbench.table`), by model, size and machine class."""
    table = table.assign(label=labels(table), size=table["size"].astype(str))
    trials = trials_of(table)
    if trials.empty:
        return ()
    trials = _with_settings(trials.sort_values(["label", "task", "trial", "id"]))
    return tuple(_searches(here) for _, here in trials.groupby(BOARD))


def _searches(trials: "pd.DataFrame") -> Searches:
    tasks = tuple(sorted(set(trials["task"])))
    of = {(str(m), str(t)): here for (m, t), here in trials.groupby(["label", "task"])}
    methods = sorted({method for method, _ in of})
    counts = {m: min(_count(of[m, task]) if (m, task) in of else 0 for task in tasks) for m in methods}
    model, size, machine_class = (str(trials[name].iloc[0]) for name in BOARD)
    bought = tuple(
        _bought(k, {m: [of[m, t] for t in tasks] for m in methods}) for k in range(1, min(counts.values()) + 1)
    )
    chosen = tuple(_chosen(method, task, here) for (method, task), here in of.items())
    log = tuple(_line(row) for row in trials.to_dict("records"))
    return Searches(model, size, machine_class, tasks, counts, bought, chosen, log)


def _count(trials: "pd.DataFrame") -> int:
    return int(trials["trial"].max()) + 1


def best(trials: "pd.DataFrame") -> "pd.Series[Any] | None":
    """The trial with the lowest validation loss of those that ended well; of equals, the first."""
    good = trials[(trials["status"] == "ok") & trials["validation_loss"].notna()]
    return None if good.empty else good.sort_values(["validation_loss", "trial"]).iloc[0]


def _bought(k: int, of: "Mapping[str, list[pd.DataFrame]]") -> Bought:
    scores = {method: _mean([best(here[here["trial"] < k]) for here in tasks]) for method, tasks in of.items()}
    known = [score for score in scores.values() if score is not None]
    ranks = {m: None if score is None else 1 + sum(other > score for other in known) for m, score in scores.items()}
    return Bought(k, scores, ranks)


def _mean(winners: "list[pd.Series[Any] | None]") -> float | None:
    scores = [math.nan if winner is None else float(winner["score"]) for winner in winners]
    mean = math.fsum(scores) / len(scores)
    return None if math.isnan(mean) else mean


def _chosen(method: str, task: str, trials: "pd.DataFrame") -> Chosen:
    winner = best(trials)
    endings = {name: int(count) for name in ENDINGS if (count := (trials["status"] == name).sum())}
    if winner is None:
        return Chosen(method, task, None, "", None, None, endings)
    loss, score = _number(winner["validation_loss"]), _number(winner["score"])
    return Chosen(method, task, int(winner["trial"]) + 1, str(winner["settings"]), loss, score, endings)


def _line(row: Mapping[Any, Any]) -> dict[str, Any]:
    numbers = ("validation_loss", "score", "best_step", "steps")
    named = {"method": row["label"], "task": row["task"], "trial": int(row["trial"]) + 1, "settings": row["settings"]}
    return named | {"id": row["id"], "status": row["status"]} | {name: _number(row[name]) for name in numbers}


def _with_settings(trials: "pd.DataFrame") -> "pd.DataFrame":
    """The trials with a column `settings`: the learning rate and what else differs among the trials of a search."""
    fixed = {
        str(key): set.intersection(*(set(text.split(", ")) for text in here["training"]))
        for key, here in trials.groupby([*BOARD, "label", "task"])
    }
    said = []
    for row in trials.to_dict("records"):
        same = fixed[str(tuple(row[name] for name in (*BOARD, "label", "task")))]
        rate = _number(row["learning_rate"])
        others = [part for part in row["training"].split(", ") if part not in same]
        others = [part for part in others if not part.startswith("learning_rate=")]
        said.append(", ".join(filter(None, [row["tuned"], "" if rate is None else f"learning_rate={rate:g}", *others])))
    return trials.assign(settings=said)


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
