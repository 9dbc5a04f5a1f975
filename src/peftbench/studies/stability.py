"""Stability over seeds: how far runs that differ only in the seed differ in score, and how many fail.

The seeds of a cell share their test rows, so their spread is caused by training (choice and order of the training rows,
initialisation), as measured on this test set.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING

from peftbench.core.jsonable import to_json
from peftbench.core.spec import BAD
from peftbench.stats.intervals import Scores
from peftbench.studies._chance_level import at_chance
from peftbench.studies._comparable_groups import Group
from peftbench.studies._figure_style import (
    REFERENCE,
    ROW,
    STRONG,
    WIDTH,
    Rows,
    Style,
    chart,
    method_encodings,
    tooltip,
    vega_spec,
)
from peftbench.studies._missing_cells import good_of, scores_of
from peftbench.studies._text_format import ABSENT
from peftbench.studies.presentation_blocks import Figure, Section, Table
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Spread:
    """Standard deviation over seeds in points of score, pooled over cells, with its 95 % interval."""

    sd: float
    low: float
    high: float
    df: int


@dataclass(frozen=True)
class Worst:
    """The seed with the lowest mean score over the tasks; `below`: points below the mean of all seeds."""

    seed: int
    mean: float
    below: float


@dataclass(frozen=True)
class Stability:
    """Stability of a method over seeds.

    `spread` is `None` unless a task has two seeds with a score; `worst` considers the seeds with a score on every
    task of the method, and is `None` if there are fewer than two. `ended`: number of runs by status. `judged`: number
    of runs with a score for which it is known whether they are at chance; `at_chance` of these are.
    """

    method: str
    spread: Spread | None
    worst: Worst | None
    runs: int
    ended: Mapping[str, int]
    judged: int
    at_chance: int


def pooled_spread(cells: Iterable[Sequence[float]], level: float = 0.95) -> Spread | None:
    """Return the pooled standard deviation of scores within cells, or `None` if no cell has two scores.

    The interval is from the chi-square distribution; it assumes normal scores with the same variance in every cell.
    """
    from scipy.special import chdtri

    several = [scores for scores in cells if len(scores) > 1]
    df = sum(len(scores) - 1 for scores in several)
    if not df:
        return None
    squares = sum(variance(scores) * (len(scores) - 1) for scores in several)
    low, high = (math.sqrt(squares / float(chdtri(df, tail))) for tail in ((1 - level) / 2, (1 + level) / 2))
    return Spread(math.sqrt(squares / df), low, high, df)


def worst(scores: Scores) -> Worst | None:
    """Return the worst seed of those with a score on every task, the first if equal; `None` for fewer than two."""
    shared = sorted(set.intersection(*(set(runs) for runs in scores.values()))) if scores else []
    if len(shared) < 2:
        return None
    means = {seed: fmean(runs[seed].score for runs in scores.values()) for seed in shared}
    seed = min(shared, key=lambda one: means[one])
    return Worst(seed, means[seed], fmean(means.values()) - means[seed])


def stability(runs: "pd.DataFrame") -> list[Stability]:
    """Return the stability of each method, smallest spread first; `runs` has a column `label`."""
    found = [_of(str(label), own) for label, own in runs.groupby("label")]
    return sorted(found, key=lambda one: (one.spread.sd if one.spread else math.inf, one.method))


def _of(label: str, runs: "pd.DataFrame") -> Stability:
    scores = scores_of(runs, ())
    chance = at_chance(runs[runs["status"] == "ok"])
    return Stability(
        method=label,
        spread=pooled_spread([run.score for run in cell.values()] for cell in scores.values()),
        worst=worst(scores),
        runs=len(runs),
        ended={str(status): int(count) for status, count in runs["status"].value_counts().sort_index().items()},
        judged=int(chance.notna().sum()),
        at_chance=int(chance.sum()),
    )


# Presentation

ORDER = 30
LEAST = 3
"""Minimum number of seeds of a task for which stability is shown."""
PANELS = 6
"""Maximum number of tasks with their own panels; for more tasks the mean over tasks is drawn."""
LOST = {status: status.capitalize().replace("-", " ") for status in reversed(BAD)}
ABOUT = (
    "The same method, settings and test rows with different seeds, which determine the training rows, their order and "
    "the initialisation. The spread is the standard deviation over seeds, pooled over tasks, with its 95 % chi-square "
    "interval; the worst seed has the lowest mean over the tasks."
)
NOTE = (
    "At chance: runs that are not shown to be better than the best constant answer (one-sided, 95 %), among the runs "
    "with a score for which this is known."
)


def analyse(data: RunData) -> "list[tuple[Group, list[Stability]]] | None":
    """Return the stability of the methods of each group of runs; `None` if no task has `LEAST` seeds."""
    return [(group, stability(group.runs)) for group in data.groups if _seeds(group) >= LEAST] or None


def present(found: "list[tuple[Group, list[Stability]]]", styles: Mapping[str, Style]) -> Section:
    """Return a table and a figure per group of runs."""
    return Section(
        name="stability",
        title="Stability over seeds",
        about=ABOUT,
        sheets=tuple(_sheet(group, held) for group, held in found),
        draw=lambda: (_strip(group, styles) for group, _ in found if len(good_of(group.runs))),
        data=[{"runs": str(group), "methods": to_json(held)} for group, held in found],
    )


def _seeds(group: Group) -> int:
    return int(group.runs.groupby(["label", "task"])["seed"].nunique().max())


def _sheet(group: Group, held: list[Stability]) -> Table:
    lost = [status for status in LOST if any(status in one.ended for one in held)]
    headings = ["Method", "Spread", "95 % interval", "Worst seed", "Its mean", "Below mean", "Runs"]
    headings += [*(LOST[status] for status in lost), "At chance"]
    lines = []
    for one in held:
        line = [one.method, *_spread(one), *_worst(one), str(one.runs)]
        line += [_share(one.ended.get(status, 0), one.runs) for status in lost]
        lines.append((*line, _share(one.at_chance, one.judged)))
    return Table(str(group), tuple(headings), 1, tuple(lines), NOTE)


def _spread(one: Stability) -> tuple[str, str]:
    held = one.spread
    return (ABSENT, ABSENT) if held is None else (f"{held.sd:.2f}", f"{held.low:.2f} to {held.high:.2f}")


def _worst(one: Stability) -> tuple[str, str, str]:
    held = one.worst
    return (ABSENT,) * 3 if held is None else (str(held.seed), f"{held.mean:.1f}", f"{held.below:.1f}")


def _share(count: int, among: int) -> str:
    """Format a share as `1 of 6 (17 %)`; absent if there are none."""
    return f"{count} of {among} ({100 * count / among:.0f} %)" if among else ABSENT


def _strip(group: Group, looks: Mapping[str, Style]) -> Figure:
    """Return a figure with a row per method: a point per seed, a tick at their mean, a dotted line at chance."""
    import altair as alt

    rows = _points(good_of(group.runs))
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    methods = sorted({row["method"] for row in rows})
    encoded = method_encodings({method: looks[method] for method in methods}, legend=False)
    known = any(row["chance"] is not None for row in rows)
    across = min(3, len(panels))
    drawn = chart(rows)
    y = alt.Y("method:N", sort=methods, title=None)
    means = drawn.mark_tick(style=STRONG).encode(x="mean(score):Q", y=y)
    chance = drawn.transform_filter("isValid(datum.chance)").mark_rule(style=REFERENCE).encode(x="max(chance):Q")
    seeds = drawn.mark_point(filled=True, size=45, opacity=0.75).encode(
        x=alt.X("score:Q", title="Score", scale=alt.Scale(zero=False, padding=8)),
        y=y,
        **encoded.point,
        tooltip=tooltip(Method="method:N", Seed="seed:N", Score="score:Q|.1f"),
    )
    made = (
        alt.layer(*([chance] if known else []), means, seeds)
        .properties(width=(WIDTH + 120) // across, height=alt.Step(ROW))
        .facet(alt.Facet("panel:N", sort=panels, title=None), columns=across)
        .resolve_scale(x="independent")
    )
    return Figure(f"Every seed of {group}", vega_spec(made), "The score of every seed, one row per method")


def _points(runs: "pd.DataFrame") -> Rows:
    """Return a point per score, with the chance level if it is known and the same for all runs of the task.

    With more than `PANELS` tasks, a point is the mean of a seed over the tasks, for seeds that have all tasks of the
    method.
    """
    if runs["task"].nunique() > PANELS:
        held = runs.pivot_table(index=["label", "seed"], columns="task", values="score")
        means = held[held.notna().sum(axis=1) == held.groupby("label").transform("max").notna().sum(axis=1)].mean(
            axis=1
        )
        return [
            {"panel": "Mean over the tasks", "method": str(method), "seed": int(seed), "score": score, "chance": None}
            for method, seed, score in means.reset_index().itertuples(index=False, name=None)
        ]
    found: Rows = []
    for task, own in runs.groupby("task"):
        known = own["chance"].dropna().unique()
        chance = float(known[0]) if len(known) == 1 else None
        found += [
            {"panel": str(task), "method": str(method), "seed": int(seed), "score": float(score), "chance": chance}
            for method, seed, score in zip(own["label"], own["seed"], own["score"], strict=True)
        ]
    return found
