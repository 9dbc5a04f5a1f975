"""What another seed would have changed: the spread of each method, its worst seed, its runs that came to nothing."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from peftbench.core.jsonable import plain
from peftbench.core.spec import BAD
from peftbench.report.columns import ABSENT
from peftbench.studies.coverage import good_of
from peftbench.studies.figures import INK, Style, beside, drawing, frame, svg
from peftbench.studies.groups import Group, groups
from peftbench.studies.report_data import Evidence, Section, Sheet
from peftbench.studies.stability import Stability, stability

if TYPE_CHECKING:
    import pandas as pd

LEAST = 3
"""Seeds of a task from which on a spread is told."""
PANELS = 6
"""Tasks that have a panel of their own; of more, the mean over tasks is drawn."""
ROW, TITLE = 0.2, 0.75
"""Inches of a panel: for each method, and for its title and axis."""
LOST = {status: status.capitalize().replace("-", " ") for status in reversed(BAD)}
ABOUT = (
    "The same method, settings and test rows under other seeds, which choose the training rows, their order and the "
    "start. The spread is the standard deviation over seeds, pooled over tasks, with its 95 % interval by chi-square; "
    "the worst seed has the lowest mean over the tasks."
)
NOTE = (
    "At chance: not shown to be better than the best answer that is the same for all rows (one-sided, 95 %), of the "
    "runs with a score for which that is known."
)


def section(evidence: Evidence) -> Section | None:
    """The section; none where no task has `LEAST` seeds."""
    found = [(group, stability(group.runs)) for group in groups(evidence.table) if _seeds(group) >= LEAST]
    if not found:
        return None
    return Section(
        name="stability",
        title="Stability over seeds",
        about=ABOUT,
        sheets=tuple(_sheet(group, held) for group, held in found),
        figures=_figures([group for group, _ in found], evidence.looks),
        data=[{"runs": str(group), "methods": plain(held)} for group, held in found],
    )


def _seeds(group: Group) -> int:
    return int(group.runs.groupby(["label", "task"])["seed"].nunique().max())


def _sheet(group: Group, held: list[Stability]) -> Sheet:
    lost = [status for status in LOST if any(status in one.ended for one in held)]
    headings = ["Method", "Spread", "95 % interval", "Worst seed", "Its mean", "Below mean", "Runs"]
    headings += [*(LOST[status] for status in lost), "At chance"]
    lines = []
    for one in held:
        line = [one.method, *_spread(one), *_worst(one), str(one.runs)]
        line += [_share(one.ended.get(status, 0), one.runs) for status in lost]
        lines.append((*line, _share(one.at_chance, one.judged)))
    return Sheet(str(group), tuple(headings), 1, tuple(lines), NOTE)


def _spread(one: Stability) -> tuple[str, str]:
    held = one.spread
    return (ABSENT, ABSENT) if held is None else (f"{held.sd:.2f}", f"{held.low:.2f} to {held.high:.2f}")


def _worst(one: Stability) -> tuple[str, str, str]:
    held = one.worst
    return (ABSENT,) * 3 if held is None else (str(held.seed), f"{held.mean:.1f}", f"{held.below:.1f}")


def _share(count: int, among: int) -> str:
    """`1 of 6 (17 %)`; nothing is known of none."""
    return f"{count} of {among} ({100 * count / among:.0f} %)" if among else ABSENT


def _figures(found: list[Group], looks: Mapping[str, Style]) -> dict[str, Callable[[], str]]:
    drawn = [group for group in found if len(good_of(group.runs))]
    return {
        f"Every seed of {group}": partial(_strip, group.runs, looks, f"stability-{number}")
        for number, group in enumerate(drawn)
    }


def _strip(runs: "pd.DataFrame", looks: Mapping[str, Style], name: str) -> str:
    """A row of points for each method, one a seed; a bar at their mean, dots where chance is."""
    panels = _panels(good_of(runs))
    methods = sorted({method for _, scores, _ in panels for method in scores}, reverse=True)
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    with drawing((7.6 + beside(methods), down * (ROW * len(methods) + TITLE))) as figure:
        axes = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
        for panel, (title, scores, chance) in zip(axes, panels, strict=False):
            for method, held in scores.items():
                row, (colour, marker, _) = methods.index(method), looks[method]
                panel.plot(held, [row] * len(held), marker, color=colour, ms=5, alpha=0.75)
                mean = sum(held) / len(held)
                panel.plot([mean, mean], [row - 0.35, row + 0.35], color=INK, lw=1.2)
            if chance is not None:
                panel.axvline(chance, color=INK, lw=0.8, ls=":")
            panel.set_title(title, fontsize=9)
            panel.set_yticks(range(len(methods)), methods)
            frame(panel, "Score", "")
        for unused in axes[len(panels) :]:
            unused.set_visible(False)
        return svg(figure, name, "The score of every seed, a row for each method")


def _panels(runs: "pd.DataFrame") -> list[tuple[str, dict[str, list[float]], float | None]]:
    """Title, scores by method, and chance where it is known and one; with many tasks the means of the seeds over them.

    A mean over tasks is drawn of the seeds that have all tasks of the method.
    """
    if runs["task"].nunique() > PANELS:
        held = runs.pivot_table(index=["label", "seed"], columns="task", values="score")
        means = held[held.notna().sum(axis=1) == held.groupby("label").transform("max").notna().sum(axis=1)].mean(
            axis=1
        )
        return [("Mean over the tasks", {str(m): list(own) for m, own in means.groupby("label")}, None)]
    found = []
    for task, own in runs.groupby("task"):
        chance = own["chance"].dropna().unique()
        scores = {str(method): list(one["score"]) for method, one in own.groupby("label")}
        found.append((str(task), scores, float(chance[0]) if len(chance) == 1 else None))
    return found
