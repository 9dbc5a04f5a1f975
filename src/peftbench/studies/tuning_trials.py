"""Results of setting searches: score by number of trials, the chosen settings, and every trial.

Of the first k trials of each search, the one with the lowest validation loss is chosen; its test score, on the seeds of
the trials, is the score after k trials. The choice never depends on a test score. A trial's numbers are the means over
its runs, one per seed; it ended well if all of them did.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftbench.core.jsonable import to_json
from peftbench.core.spec import BAD
from peftbench.studies._figure_style import (
    WIDTH,
    Rows,
    Style,
    chart,
    lines_and_points,
    method_encodings,
    tall_enough,
    tooltip,
    vega_spec,
)
from peftbench.studies._run_labels import distinct, method_labels
from peftbench.studies._setting_selection import trials_of
from peftbench.studies._text_format import ABSENT, seeds_text
from peftbench.studies.presentation_blocks import Figure, Section, Table
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd

BOARD = ["model", "size", "machine_class"]
ENDINGS: tuple[str, ...] = ("ok", "pruned", *reversed(BAD))


@dataclass(frozen=True)
class Chosen:
    """The winner of the search of a method on a task: `trial` counts from 1, and is `None` if no trial ended well.

    `settings` is written as in a grid. `score` is the test score on the seeds of the trials; `endings` is the number of
    trials by status.
    """

    method: str
    task: str
    trial: int | None
    settings: str
    validation_loss: float | None
    score: float | None
    endings: Mapping[str, int]


@dataclass(frozen=True)
class ScoresAfterTrials:
    """Mean test score of each method over the tasks after a number of trials, and its rank, 1 for the best.

    Both are `None` if on some task none of the method's first trials ended well; equal scores share a rank.
    """

    trials: int
    scores: Mapping[str, float | None]
    ranks: Mapping[str, int | None]


@dataclass(frozen=True)
class Searches:
    """The searches of one model, train size and machine class whose trials ran on the same seeds.

    `seeds` are the seeds of the trials. `trials` is by method, the smallest number on any task; `bought` goes up to the
    number that all methods have. `log` has one row per run, ordered by trial. `labels` gives the method's label on the
    leaderboards, which several searches of it share; `fixed` gives the settings that its search did not change.
    """

    model: str
    size: str
    machine_class: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    trials: Mapping[str, int]
    bought: tuple[ScoresAfterTrials, ...]
    chosen: tuple[Chosen, ...]
    log: tuple[Mapping[str, Any], ...]
    labels: Mapping[str, str]
    fixed: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = to_json(self)
        return found


def searches(table: "pd.DataFrame") -> tuple[Searches, ...]:
    """Return the searches in a table with one row per run (`peftbench.table`), by model, size, machine and seeds."""
    # Distinct names, so that no trial is chosen from searches whose losses are not comparable.
    table = distinct(table)
    table = table.assign(label=method_labels(table), size=table["size"].astype(str))
    trials = trials_of(table)
    if trials.empty:
        return ()
    trials = _with_shared(trials.assign(search=trials.get("search", "")))
    of_search = trials.groupby([*BOARD, "label", "search"])["seed"]
    trials = trials.assign(seeds=of_search.transform(lambda seeds: " ".join(map(str, sorted(set(map(int, seeds)))))))
    trials = trials.sort_values(["label", "search", "task", "trial", "seed", "id"])
    return tuple(_searches(_with_settings(_named(here))) for _, here in trials.groupby([*BOARD, "seeds"]))


def _with_shared(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Return the trials; trials that several searches of a method share are stored once and repeated in each search."""
    import pandas as pd

    cell, found = [*BOARD, "label", "task"], [trials]
    for _, here in trials.groupby(cell):
        for search, own in here.groupby("search"):
            others = here[here["search"] != search]
            lacks = ~others["trial"].isin(own["trial"]) & (others["trial"] < own["trial"].max())
            shared = others[lacks & others["seed"].isin(own["seed"])]
            found.append(shared.drop_duplicates(["trial", "seed"]).assign(search=search))
    return pd.concat(found, ignore_index=True)


def _named(runs: "pd.DataFrame") -> "pd.DataFrame":
    """Return the runs with `plain_label`; `label` has the search number, from 1, if a method has several searches."""
    names = {}
    for label, own in runs.groupby("label"):
        found = sorted(set(own["search"]))
        for number, search in enumerate(found, start=1):
            names[label, search] = f"{label}, search {number}" if len(found) > 1 else str(label)
    keys = zip(runs["label"], runs["search"], strict=True)
    return runs.assign(plain_label=runs["label"], label=[names[key] for key in keys])


def _searches(runs: "pd.DataFrame") -> Searches:
    trials = _together(runs)
    tasks = tuple(sorted(set(runs["task"])))
    of = {(str(m), str(t)): here for (m, t), here in trials.groupby(["label", "task"])}
    methods = sorted(set(runs["label"]))
    counts = {m: min(_count(of[m, task]) if (m, task) in of else 0 for task in tasks) for m in methods}
    model, size, machine_class = (str(runs[name].iloc[0]) for name in BOARD)
    bought = tuple(
        _scores_after(k, {m: [of[m, t] for t in tasks] for m in methods}) for k in range(1, min(counts.values()) + 1)
    )
    chosen = tuple(_chosen(method, task, here) for (method, task), here in of.items())
    log = tuple(_line(row) for row in runs.to_dict("records"))
    seeds = tuple(sorted({int(seed) for seed in runs["seed"]}))
    named, fixed = (dict(zip(runs["label"], runs[name], strict=True)) for name in ("plain_label", "fixed"))
    return Searches(model, size, machine_class, tasks, seeds, counts, bought, chosen, log, named, fixed)


def _together(runs: "pd.DataFrame") -> "pd.DataFrame":
    """Return one row per trial that has runs on all seeds: the worst status of its runs, and mean loss and score."""
    seeds = runs["seed"].nunique()
    trials = runs.groupby([*BOARD, "label", "task", "trial", "settings"], as_index=False).agg(
        runs=("status", "size"),
        status=("status", lambda ended: max(ended, key=ENDINGS.index)),
        validation_loss=("validation_loss", lambda losses: losses.mean(skipna=False)),
        score=("score", lambda scores: scores.mean(skipna=False)),
    )
    return trials[trials["runs"] == seeds]


def _count(trials: "pd.DataFrame") -> int:
    return int(trials["trial"].max()) + 1


def best(trials: "pd.DataFrame") -> "pd.Series[Any] | None":
    """Return the trial with the lowest validation loss among those that ended well; the first if equal."""
    good = trials[(trials["status"] == "ok") & trials["validation_loss"].notna()]
    return None if good.empty else good.sort_values(["validation_loss", "trial"]).iloc[0]


def _scores_after(k: int, of: "Mapping[str, list[pd.DataFrame]]") -> ScoresAfterTrials:
    scores = {method: _mean([best(here[here["trial"] < k]) for here in tasks]) for method, tasks in of.items()}
    known = [score for score in scores.values() if score is not None]
    ranks = {m: None if score is None else 1 + sum(other > score for other in known) for m, score in scores.items()}
    return ScoresAfterTrials(k, scores, ranks)


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
    place = {"method": row["label"], "task": row["task"], "trial": int(row["trial"]) + 1, "seed": int(row["seed"])}
    told = {name: row[name] for name in ("settings", "id", "status")}
    return place | told | {name: _number(row[name]) for name in numbers}


def _with_settings(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Return the trials with columns `settings` and `fixed`.

    `settings` has the learning rate and other settings that differ among the trials of a search; `fixed` has the
    others.
    """
    same = {
        str(key): set.intersection(*(set(text.split(", ")) for text in here["training"])) - {""}
        for key, here in trials.groupby([*BOARD, "label", "task"])
    }
    said, fixed = [], []
    for row in trials.to_dict("records"):
        alike = same[str(tuple(row[name] for name in (*BOARD, "label", "task")))]
        rate = _number(row["learning_rate"])
        others = [part for part in row["training"].split(", ") if part not in alike]
        others = [part for part in others if not part.startswith("learning_rate=")]
        said.append(", ".join(filter(None, [row["tuned"], "" if rate is None else f"learning_rate={rate:g}", *others])))
        fixed.append(", ".join(sorted(alike)))
    return trials.assign(settings=said, fixed=fixed)


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


# Presentation

ORDER = 80
ABOUT = (
    "Every method was given the same number of trials on each task, on seeds that its own runs do not use. For each "
    "number of trials, the trial with the lowest validation loss is chosen, never by test score. Its test "
    "score on those seeds is shown as a mean over the tasks, with its rank. The leaderboards use the winning settings."
)
NO_INTERVAL = (
    "Scores of trials come from the few seeds of the trials and have no interval, so small differences and ranks are "
    "not significant."
)


def analyse(data: RunData) -> tuple[Searches, ...] | None:
    """Return the searches, or `None` without trials."""
    return searches(data.table) or None


def present(found: Sequence[Searches], styles: Mapping[str, Style]) -> Section:
    """Return tables and figures of scores by number of trials, and tables of the chosen settings."""
    sheets = [sheet for each in found for sheet in (_by_number(each), _chosen_table(each)) if sheet.lines]
    remarks = (NO_INTERVAL, *(remark for each in found for remark in _remarks(each)))
    data = [each.to_dict() for each in found]
    return Section(
        "trials",
        "Score by number of trials",
        ABOUT,
        tuple(sheets),
        lambda: (_figure(each, styles) for each in found if _has_scores(each)),
        remarks,
        data,
    )


def _title(each: Searches) -> str:
    return f"{each.model}, {each.size} training rows, {each.machine_class}, trials on {seeds_text(each.seeds)}"


def _columns(count: int) -> list[int]:
    """Return the numbers of trials to show: all up to 4, then in steps of about a factor of 1.5, and the last."""
    steps = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    return sorted({*(step for step in steps if step < count), count})


def _by_number(each: Searches) -> Table:
    bought = {one.trials: one for one in each.bought}
    shown = [bought[count] for count in _columns(len(bought))] if bought else []

    def text(method: str) -> list[str]:
        pairs = [(one.scores[method], one.ranks[method]) for one in shown]
        return [ABSENT if score is None else f"{score:.1f} ({rank})" for score, rank in pairs]

    last = each.bought[-1].scores if each.bought else {}
    order = sorted(each.trials, key=lambda m: (last.get(m) is None, -(last.get(m) or 0.0), m))
    lines = tuple((method, *text(method)) for method in order) if shown else ()
    headings = ("Method", *(f"{one.trials} trial{'s' * (one.trials > 1)}" for one in shown))
    return Table(f"{_title(each)}: test score (rank) by the number of trials", headings, 1, lines)


def _chosen_table(each: Searches) -> Table:
    headings = ("Method", "Task", "Chosen", "Trial", "Validation loss", "Trials")
    lines = tuple(
        (
            one.method,
            one.task,
            one.settings or "nothing: no trial ended well",
            ABSENT if one.trial is None else str(one.trial),
            ABSENT if one.validation_loss is None else f"{one.validation_loss:.3f}",
            ", ".join(f"{count} {ending}" for ending, count in one.endings.items()),
        )
        for one in each.chosen
    )
    return Table(f"{_title(each)}: settings chosen on validation", headings, 3, lines)


def _remarks(each: Searches) -> list[str]:
    said = []
    several = [method for method, label in each.labels.items() if method != label]
    if several:
        fixed = "; ".join(f"{method}: {each.fixed[method] or 'the default settings'}" for method in several)
        said.append(f"{_title(each)}: several searches of one method with different ranges or settings: {fixed}.")
    if len(each.seeds) == 1:
        said.append(f"{_title(each)}: trials ran on one seed, so settings are chosen for that seed.")
    if len(set(each.trials.values())) > 1:
        counts = ", ".join(f"{count} for {method}" for method, count in each.trials.items())
        said.append(f"{_title(each)}: the searches are not complete; minimum number of trials per task: {counts}.")
    lost = [f"{one.method} on {one.task}" for one in each.chosen if one.trial is None]
    if lost:
        said.append(f"{_title(each)}: no trial ended well, so there is no run on the grid's seeds: {', '.join(lost)}.")
    return said


def _has_scores(each: Searches) -> bool:
    return len(each.bought) > 1 and any(score is not None for one in each.bought for score in one.scores.values())


def _figure(each: Searches, looks: Mapping[str, Style]) -> Figure:
    import altair as alt

    rows: Rows = [
        {"method": method, "trials": one.trials, "score": score}
        for one in each.bought
        for method, score in one.scores.items()
        if score is not None
    ]
    drawn = list(dict.fromkeys(row["method"] for row in reversed(rows)))
    encoded = method_encodings({method: looks[each.labels[method]] for method in drawn})
    x = alt.X("trials:Q", title="Trials", scale=alt.Scale(zero=False, nice=False, padding=10))
    x = x.axis(values=_columns(len(each.bought)), format="d")
    y = alt.Y("score:Q", title="Mean test score of the best by validation", scale=alt.Scale(zero=False))
    shown = tooltip(Method="method:N", Trials="trials:Q", Score="score:Q|.1f")
    layers = lines_and_points(chart(rows), encoded, {"x": x, "y": y}, shown, interpolate="step-after")
    made = alt.layer(*layers).properties(width=WIDTH, height=tall_enough(drawn))
    return Figure(_title(each), vega_spec(made), "Mean test score against the number of trials, one line per method")
