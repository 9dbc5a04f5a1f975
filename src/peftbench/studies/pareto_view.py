"""Learning against forgetting, and which methods no other beats in both."""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from peftbench.core.jsonable import plain
from peftbench.report.columns import ABSENT, interval_text
from peftbench.report.tables import lacking
from peftbench.studies.figures import INK, Style, bar, drawing, frame, svg
from peftbench.studies.groups import Group, groups
from peftbench.studies.label_layout import place
from peftbench.studies.pareto import Front, Standing, front
from peftbench.studies.report_data import Evidence, Section, Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED = 0
"""Of the resamples: the same runs, the same report."""
ABOUT = (
    "What a method learns, as mean score, against what it forgets, as the rise of the loss on general text in nats per "
    "token. A method stands on the front unless another is no worse in both and better in one. The share tells in how "
    "many resamples of the seeds it stands there; test rows and text stay the same in them."
)


def section(evidence: Evidence) -> Section | None:
    """The section; none where fewer than two methods of a group have both figures on the same cells."""
    made = [(group, front(group.runs, np.random.default_rng(SEED))) for group in groups(evidence.table)]
    found = [(group, one) for group, one in made if len(one.standings) > 1]
    if not found:
        return None
    return Section(
        name="retention",
        title="Learning against forgetting",
        about=ABOUT,
        sheets=tuple(_sheet(group, one) for group, one in found),
        figures={
            f"Front of {group}": partial(_scatter, one, evidence.looks, f"front-{number}")
            for number, (group, one) in enumerate(found)
        },
        remarks=tuple(f"{group}, left out: {text}" for group, one in found for text in lacking(one.missing.items())),
        data=[
            {"runs": str(group), "on_front": [s.method for s in one.standings if s.on_front], **plain(one)}
            for group, one in found
        ],
    )


def _sheet(group: Group, one: Front) -> Sheet:
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
    return Sheet(str(group), headings, 3, tuple(lines), f"Tasks: {', '.join(one.tasks)}.")


def _scatter(one: Front, looks: Mapping[str, Style], name: str) -> str:
    with drawing((7.6, 4.6)) as figure:
        axes = figure.subplots()
        # An edge of the front runs level, then up: what lies under it is dominated.
        ordered = sorted((s for s in one.standings if s.on_front), key=lambda s: (s.forgetting.mean, s.score.mean))
        for left, right in pairwise(ordered):
            x, y = [left.forgetting.mean, right.forgetting.mean], [left.score.mean, right.score.mean]
            axes.plot([x[0], x[1], x[1]], [y[0], y[0], y[1]], color=INK, lw=0.9, ls=":")
        for standing in one.standings:
            _point(axes, standing, looks[standing.method])
        axes.margins(0.14, 0.1)
        frame(axes, "Forgetting: rise of the loss on general text, nats per token", "Mean score (95 % intervals)")
        figure.draw_without_rendering()
        place(axes, [(s.method, s.forgetting.mean, s.score.mean, looks[s.method][0]) for s in one.standings])
        return svg(figure, name, "Mean score against forgetting, one point per method, and the front")


def _point(axes: "Axes", standing: Standing, look: Style) -> None:
    colour, marker, _ = look
    axes.errorbar(
        standing.forgetting.mean,
        standing.score.mean,
        bar(standing.score),
        bar(standing.forgetting),
        fmt=marker,
        ms=7,
        color=colour,
        mfc=colour if standing.on_front else "none",
        capsize=3,
        lw=1.2,
    )
