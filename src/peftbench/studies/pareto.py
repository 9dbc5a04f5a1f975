"""Learning against forgetting: the Pareto front of the methods.

A method is dominated if another is at least as good in both and better in one. The front is computed from means; the
share of resamples of the seeds in which a method is on the front shows its uncertainty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from peftbench.core.jsonable import to_json
from peftbench.stats.intervals import Interval, Run, Scores, cell, over_tasks
from peftbench.studies._comparable_groups import Group
from peftbench.studies._figure_style import (
    REFERENCE,
    WIDTH,
    Rows,
    Style,
    chart,
    choosable,
    error_bars,
    interval_ends,
    method_encodings,
    of,
    tall_enough,
    tooltip,
    vega_spec,
)
from peftbench.studies._missing_cells import MissingCell, cells_of, good_of, missing_of, scores_of
from peftbench.studies._text_format import ABSENT, interval_text, lacking_text
from peftbench.studies.presentation_blocks import Figure, Section, Table
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Losses = dict[str, dict[int, float]]
"""Rise of the loss on general text in a method's runs: task to seed to nats per token."""


@dataclass(frozen=True)
class Standing:
    """Learning and forgetting of a method.

    `forgetting` is the mean rise of the loss on general text over the same cells; its interval covers only the spread
    over seeds, and is unknown for one seed. `share`: the share of resamples in which the method is on the front; `None`
    if a task has only one seed.
    """

    method: str
    score: Interval
    forgetting: Interval
    dominated_by: tuple[str, ...]
    share: float | None

    @property
    def on_front(self) -> bool:
        """True if no other method dominates this one."""
        return not self.dominated_by


@dataclass(frozen=True)
class Front:
    """The methods of one group with a score and a rise of the loss on every cell, highest score first.

    `missing`: the missing cells of methods that have only some of them.
    """

    tasks: tuple[str, ...]
    standings: tuple[Standing, ...]
    missing: Mapping[str, tuple[MissingCell, ...]]


def dominated(points: Mapping[str, tuple[float, float]]) -> dict[str, tuple[str, ...]]:
    """Return which other points dominate each point (score, forgetting); high score and low forgetting are better."""
    return {
        name: tuple(other for other, there in sorted(points.items()) if _dominates(there, here))
        for name, here in points.items()
    }


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def front(runs: "pd.DataFrame", rng: np.random.Generator, resamples: int = 2000) -> Front:
    """Return the front of a group of runs (`_comparable_groups`); generators in the same state give equal shares."""
    known = runs["retention_loss_change"].notna()
    cells = cells_of(good_of(runs[known]))
    # Methods without any measured forgetting are left out; methods with some are reported with their missing cells.
    methods = {str(label): own for label, own in runs[known | (runs["status"] != "ok")].groupby("label")}
    methods = {label: own for label, own in methods.items() if own["retention_loss_change"].notna().any()}
    lacking = {label: missing_of(own, cells) for label, own in methods.items()}
    complete = {label: own for label, own in methods.items() if not lacking[label]}
    scores = {label: scores_of(own, ()) for label, own in complete.items()}
    losses = {label: _losses(own) for label, own in complete.items()}
    means = {label: (_mean(scores[label]), _loss(losses[label])) for label in complete}
    by = dominated(means)
    shares = _shares(scores, losses, rng, resamples)
    standings = [
        Standing(
            label,
            over_tasks([cell(held) for held in scores[label].values()]).interval(),
            over_tasks([cell(_without_rows(held)) for held in losses[label].values()]).interval(),
            by[label],
            None if shares is None else shares[label],
        )
        for label in complete
    ]
    standings.sort(key=lambda one: (-one.score.mean, one.forgetting.mean, one.method))
    return Front(
        tuple(sorted({task for task, _ in cells})),
        tuple(standings),
        {label: missing for label, missing in lacking.items() if missing},
    )


def _losses(runs: "pd.DataFrame") -> Losses:
    found: Losses = {}
    good = good_of(runs)
    for task, seed, loss in zip(good["task"], good["seed"], good["retention_loss_change"], strict=True):
        found.setdefault(task, {})[int(seed)] = float(loss)
    return dict(sorted(found.items()))


def _without_rows(losses: Mapping[int, float]) -> dict[int, Run]:
    """Return runs without row scores: the text is the same for all and treated as fixed; one seed has no error."""
    error = 0.0 if len(losses) > 1 else float("nan")
    return {seed: Run(loss, error) for seed, loss in losses.items()}


def _mean(scores: Scores) -> float:
    return fmean(fmean(run.score for run in runs.values()) for runs in scores.values())


def _loss(losses: Losses) -> float:
    return fmean(fmean(runs.values()) for runs in losses.values())


def _shares(
    scores: Mapping[str, Scores], losses: Mapping[str, Losses], rng: np.random.Generator, resamples: int
) -> dict[str, float] | None:
    """Return the share of resamples in which each method is on the front; all methods use the same drawn seeds."""
    names = sorted(scores)
    if not names or any(len(runs) < 2 for runs in scores[names[0]].values()):
        return None
    learned = np.zeros((resamples, len(names)))
    lost = np.zeros((resamples, len(names)))
    for task, runs in scores[names[0]].items():
        seeds = sorted(runs)
        drawn = rng.integers(len(seeds), size=(resamples, len(seeds)))
        points = np.array([[scores[name][task][seed].score for seed in seeds] for name in names])
        learned += points.T[drawn].mean(axis=1)
        lost += np.array([[losses[name][task][seed] for seed in seeds] for name in names]).T[drawn].mean(axis=1)
    on = [_on_front(learned, lost, one) for one in range(len(names))]
    return {name: float(held.mean()) for name, held in zip(names, on, strict=True)}


def _on_front(learned: "NDArray[np.float64]", lost: "NDArray[np.float64]", one: int) -> "NDArray[np.bool_]":
    """Return in which resamples method number `one` is not dominated; both arrays are [resamples, methods]."""
    more, less = learned - learned[:, [one]], lost - lost[:, [one]]
    beaten = (more >= 0) & (less <= 0) & ((more > 0) | (less < 0))
    return np.logical_not(beaten.any(axis=1))


# Presentation

ORDER = 70
SEED = 0
"""Seed of the resamples, so that the same runs give the same report."""
ABOUT = (
    "Learning (mean score) against forgetting (rise of the loss on general text in nats per token). A method is on the "
    "front unless another is no worse in both and better in one. The share is the share of resamples of the seeds in "
    "which it is on the front; test rows and text are not resampled."
)


def analyse(data: RunData) -> list[tuple[Group, Front]] | None:
    """Return the front of each group with at least two methods that have both values on the same cells, or `None`."""
    made = [(group, front(group.runs, np.random.default_rng(SEED))) for group in data.groups]
    return [(group, one) for group, one in made if len(one.standings) > 1] or None


def present(found: list[tuple[Group, Front]], styles: Mapping[str, Style]) -> Section:
    """Return a table and a figure per front."""
    return Section(
        name="retention",
        title="Learning against forgetting",
        about=ABOUT,
        sheets=tuple(_sheet(group, one) for group, one in found),
        draw=lambda: (_scatter(group, one, styles) for group, one in found),
        remarks=tuple(
            f"{group}, left out: {text}" for group, one in found for text in lacking_text(one.missing.items())
        ),
        data=[
            {"runs": str(group), "on_front": [s.method for s in one.standings if s.on_front], **to_json(one)}
            for group, one in found
        ],
    )


def _sheet(group: Group, one: Front) -> Table:
    headings = ("Method", "On the front", "Dominated by", "Score", "Forgets", "Share of resamples")
    lines = [
        (
            standing.method,
            "yes" if standing.on_front else "no",
            ", ".join(standing.dominated_by) or ABSENT,
            interval_text(standing.score),
            interval_text(standing.forgetting, "+.3f"),
            ABSENT if standing.share is None else f"{100 * standing.share:.0f} %",
        )
        for standing in one.standings
    ]
    return Table(str(group), headings, 3, tuple(lines), f"Tasks: {', '.join(one.tasks)}.")


def _scatter(group: Group, one: Front, looks: Mapping[str, Style]) -> Figure:
    """Return a figure of score against forgetting; methods on the front are filled points."""
    import altair as alt

    rows: Rows = [
        {
            "method": standing.method,
            "on_front": "yes" if standing.on_front else "no",
            **{f"score_{end}": value for end, value in interval_ends(standing.score).items()},
            **{f"loss_{end}": value for end, value in interval_ends(standing.forgetting).items()},
        }
        for standing in one.standings
    ]
    encoded = method_encodings({standing.method: looks[standing.method] for standing in one.standings})
    x = alt.X(scale=alt.Scale(zero=False, padding=20))
    x = x.title("Forgetting: rise of the loss on general text, nats per token")
    y = alt.Y(scale=alt.Scale(zero=False, padding=15), title="Mean score (95 % intervals)")
    place = {"x": of(x, "loss_mean"), "y": of(y, "score_mean")}
    drawn = chart(rows)
    on_front = drawn.transform_filter("datum.on_front == 'yes'")
    # The edge of the front is a step line; points below it are dominated.
    edge = on_front.mark_line(style=REFERENCE, interpolate="step-after").encode(**place, order="loss_mean:Q")
    bars = [
        error_bars(drawn, "score_low", encoded, x=of(x, "loss_mean"), y=of(y, "score_low"), y2="score_high:Q"),
        error_bars(drawn, "loss_low", encoded, x=of(x, "loss_low"), x2="loss_high:Q", y=of(y, "score_mean")),
    ]
    looked = {**place, **encoded.point}
    filled = on_front.mark_point(filled=True, size=70).encode(**looked)
    shown = tooltip(Method="method:N", On_the_front="on_front:N", Score="score_mean:Q|.1f", Forgets="loss_mean:Q|+.3f")
    hollow = choosable(drawn.mark_point(filled=False, size=70).encode(**looked, tooltip=shown))
    made = alt.layer(edge, *bars, filled, hollow)
    made = made.properties(width=WIDTH, height=tall_enough(standing.method for standing in one.standings))
    return Figure(
        f"Front of {group}", vega_spec(made), "Mean score against forgetting, one point per method, and the front"
    )
