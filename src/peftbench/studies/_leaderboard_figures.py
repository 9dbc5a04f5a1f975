"""Figures of a leaderboard: score against cost, and learning curves."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from peftbench.studies._figure_style import (
    HEIGHT,
    REFERENCE,
    WIDTH,
    Rows,
    Style,
    chart,
    choosable,
    error_bars,
    interval_ends,
    lines_and_points,
    log_x,
    method_encodings,
    of,
    tall_enough,
    tooltip,
    vega_spec,
)
from peftbench.studies.presentation_blocks import Figure

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.studies.leaderboard import Leaderboard

ROOM = 1.8
"""Factor by which the parameter axis extends beyond the smallest and the largest value."""
MARKS = 5
"""Approximate number of marked points on a learning curve."""
COUNT = "replace(format(datum.value, '~s'), 'G', 'B')"
"""Vega expression for counts on an axis, in the form of `peftbench.studies._text_format.count_text`."""


def score_cost(board: "Leaderboard", looks: Mapping[str, Style]) -> Figure | None:
    """Return a figure of the mean score with its interval against trainable parameters (log), or `None` without points.

    Methods that train nothing are horizontal lines, since a logarithmic axis has no 0.
    """
    import altair as alt

    rows: Rows = [
        {"method": row.method, "parameters": row.costs["trainable_parameters"], **interval_ends(row.mean)}
        for row in board.rows
        if row.mean
    ]
    points = [row for row in rows if row["parameters"]]
    if not points:
        return None
    encoded = method_encodings({row["method"]: looks[row["method"]] for row in points})
    counts = [row["parameters"] for row in points]
    x = of(log_x(min(counts) / ROOM, max(counts) * ROOM, "Trainable parameters", COUNT), "parameters")
    y = alt.Y(scale=alt.Scale(zero=False, padding=15), title="Mean score (95 % interval)")
    shown = tooltip(
        Method="method:N", Parameters="parameters:Q|,.0f", Mean="mean:Q|.1f", From="low:Q|.1f", To="high:Q|.1f"
    )
    intervals = error_bars(chart(points), "low", encoded, x=x, y=of(y, "low"), y2="high:Q")
    dots = chart(points).mark_point(filled=True, size=70)
    dots = choosable(dots.encode(x=x, y=of(y, "mean"), tooltip=shown, **encoded.point))
    levels = [{**row, "said": f"{row['method']} (trains nothing)"} for row in rows if row["parameters"] == 0]
    lines = chart(levels).mark_rule(style=REFERENCE).encode(y=of(y, "mean"))
    names = chart(levels).mark_text(align="right", dy=-6).encode(x=alt.value("width"), y=of(y, "mean"), text="said:N")
    layers = [*([lines, names] if levels else []), intervals, dots]
    made = alt.layer(*layers).properties(width=WIDTH, height=tall_enough(row["method"] for row in points))
    words = "Mean score against trainable parameters, one point per method"
    return Figure(f"Score against cost: {board.title}", vega_spec(made), words)


def learning_curves(
    board: "Leaderboard", runs: "pd.DataFrame", curves: "pd.DataFrame", looks: Mapping[str, Style]
) -> Figure | None:
    """Return a figure of validation loss against step with a panel per task, or `None` without curves.

    A line is the mean over the seeds of a method. Only steps at which every seed with a curve was validated are drawn,
    so that all points of a line are means over the same runs.
    """
    import altair as alt

    here = (runs["model"] == board.model) & (runs["size"] == board.size)
    runs = runs[here & runs["machine_class"].isin(board.machine_classes)]
    points = curves.merge(runs[["id", "label", "task"]], on="id")
    rows: Rows = [
        {"task": task, "method": str(label), **row}
        for task in board.tasks
        for label, of_method in points[points["task"] == task].groupby("label")
        for row in _mean_curve(of_method)
    ]
    if not rows:
        return None
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    encoded = method_encodings({method: looks[method] for method in sorted({row["method"] for row in rows})})
    across = min(2, len(tasks))
    y = alt.Y("loss:Q", title="Validation loss", scale=alt.Scale(zero=False))
    shown = tooltip(Method="method:N", Step="step:Q", Loss="loss:Q|.3f")
    lines, marks = lines_and_points(chart(rows), encoded, {"x": alt.X("step:Q", title="Step"), "y": y}, shown)
    made = (
        alt.layer(lines, marks.transform_filter("datum.marked"))
        .properties(width=WIDTH // 2, height=HEIGHT * 2 // 3)
        .facet(alt.Facet("task:N", sort=tasks, title=None), columns=across)
        .resolve_scale(x="independent", y="independent")
    )
    words = "Validation loss against step, one panel per task, one line per method"
    return Figure(f"Learning curves: {board.title}", vega_spec(made), words)


def _mean_curve(points: "pd.DataFrame") -> Rows:
    """Return the steps and losses of a line; `marked` steps are drawn as points."""
    steps = points.groupby("step")["validation_loss"]
    count = steps.count()
    line = steps.mean()[count == count.max()]
    every = max(1, len(line) // MARKS)
    return [
        {"step": float(step), "loss": float(loss) if math.isfinite(loss) else None, "marked": number % every == 0}
        for number, (step, loss) in enumerate(zip(line.index, line, strict=True))
    ]
