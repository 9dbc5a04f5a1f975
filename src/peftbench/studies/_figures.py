"""Figures as SVG text that follows the page: its font, and its colours in light and dark.

Ink and grid are drawn in two marker colours that become CSS variables. The same input gives the same bytes.
"""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

from peftbench.stats.intervals import Interval
from peftbench.studies._label_layout import label_line_ends, label_points
from peftbench.studies._text_format import count_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from peftbench.studies.leaderboard import Leaderboard

INK, GRID = "#123456", "#fedcba"
VARIABLES = {INK: "var(--ink, #1c2430)", GRID: "var(--line, #d9dee5)"}

COLOURS = ("#0077bb", "#d55e00", "#009e73", "#b8579a", "#c98a00", "#33a0c8", "#8a7ad1")
"""Okabe and Ito's and Tol's colours for the colour-blind, those that hold on white and on near-black."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "*")
DASHES = ("-", "--", "-.", ":")

Style = tuple[str, str, str]
"""Colour, marker, dash."""


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """A look for each method; 63 differ in colour and marker before any repeats."""
    n = len(COLOURS)
    return {
        method: (COLOURS[i % n], MARKERS[(i + i // (n * len(MARKERS))) % len(MARKERS)], DASHES[i // n % len(DASHES)])
        for i, method in enumerate(sorted(set(methods)))
    }


def score_cost(board: "Leaderboard", looks: Mapping[str, Style], name: str) -> str | None:
    """Mean score with its interval against trainable parameters (log); `None` if nothing can be drawn.

    Methods that train nothing are level lines, since a logarithmic axis has no 0. `name` keeps the ids of
    several figures on a page apart.
    """
    drawn = [(row.method, row.costs["trainable_parameters"], row.mean) for row in board.rows if row.mean]
    points = [(method, parameters, mean) for method, parameters, mean in drawn if parameters]
    if not points:
        return None
    with drawing((7.6, 4.6)) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: re.sub(r"\.0+(?=\D|$)", "", count_text(value)))
        axes.xaxis.set_minor_formatter("")
        for method, parameters, mean in points:
            colour, marker, _ = looks[method]
            axes.errorbar(parameters, mean.mean, bar(mean), fmt=marker, ms=7, color=colour, capsize=3, lw=1.2)
        for method, mean in [(method, mean) for method, parameters, mean in drawn if parameters == 0]:
            axes.axhline(mean.mean, color=INK, lw=1, ls=":")
            axes.annotate(
                f"{method} (trains nothing)",
                (0.995, mean.mean),
                (0, 3),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                ha="right",
                fontsize=9,
            )
        # Said outright: matplotlib loses the level lines where all methods train as many parameters.
        counts = [math.log(parameters) for _, parameters, _ in points]
        axes.set_xlim(*map(math.exp, _around(counts, 0.14, 1.0)))
        ends = [mean.mean + side for _, _, mean in drawn for side in (-mean.sides[0], mean.sides[1])]
        axes.set_ylim(*_around(ends, 0.1, 0.5))
        frame_axes(axes, "Trainable parameters", "Mean score (95 % interval)")
        figure.draw_without_rendering()
        label_points(axes, [(method, p, mean.mean, looks[method][0]) for method, p, mean in points])
        return svg(figure, name, "Mean score against trainable parameters, one point per method")


def _around(values: Sequence[float], margin: float, least: float) -> tuple[float, float]:
    """The ends of an axis that holds some values with a share of their range at either side, `least` of equal ones."""
    room = margin * (max(values) - min(values)) or least
    return min(values) - room, max(values) + room


def learning_curves(
    board: "Leaderboard", runs: "pd.DataFrame", curves: "pd.DataFrame", looks: Mapping[str, Style], name: str
) -> dict[str, str]:
    """Validation loss against step for each task of the leaderboard: one line per method, mean over its seeds.

    A step is drawn if every seed that has a curve was validated there, so that a line never changes its runs midway.
    """
    here = (runs["model"] == board.model) & (runs["size"] == board.size)
    runs = runs[here & runs["machine_class"].isin(board.machine_classes)]
    points = curves.merge(runs[["id", "label", "task"]], on="id")
    drawn = {}
    for number, task in enumerate(board.tasks):
        lines = [
            (str(label), _mean_curve(of_method)) for label, of_method in points[points["task"] == task].groupby("label")
        ]
        if lines:
            drawn[task] = _curve_panel(task, lines, looks, f"{name}-{number}")
    return drawn


def _mean_curve(points: "pd.DataFrame") -> "pd.Series[float]":
    steps = points.groupby("step")["validation_loss"]
    count = steps.count()
    return steps.mean()[count == count.max()]


def _curve_panel(
    task: str, lines: Sequence[tuple[str, "pd.Series[float]"]], looks: Mapping[str, Style], name: str
) -> str:
    with drawing((4.8 + extra_width(method for method, _ in lines), max(3.0, 0.17 * len(lines) + 0.9))) as figure:
        axes = figure.subplots()
        ends = []
        for method, line in lines:
            colour, marker, dash = looks[method]
            every = max(1, len(line) // 5)
            axes.plot(line.index, line, dash, color=colour, marker=marker, ms=4, markevery=every, lw=1.4)
            ends.append((method, float(line.index[-1]), float(line.iloc[-1]), colour))
        frame_axes(axes, "Step", "Validation loss")
        figure.draw_without_rendering()
        label_line_ends(axes, ends)
        return svg(figure, name, f"Validation loss of {task} against step, one line per method")


@contextmanager
def drawing(inches: tuple[float, float]) -> "Iterator[Figure]":
    """A figure with the settings of all figures; without pyplot, which keeps state between figures."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "peftbench", "text.parse_math": False})
        mpl.rcParams.update(dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK))
        mpl.rcParams.update({"axes.edgecolor": GRID, "grid.color": GRID, "font.size": 9})
        yield Figure(figsize=inches, layout="constrained", dpi=72)


def bar(interval: Interval) -> list[list[float]]:
    """What an error bar of `matplotlib` takes: how far it goes below and above."""
    return [[side] for side in interval.sides]


def extra_width(names: Iterable[str]) -> float:
    """Inches that the longest of some names takes at the side of a figure beyond those that its width allows for."""
    return 0.065 * max(0, max(map(len, names), default=0) - 24)


def frame_axes(axes: "Axes", x: str, y: str) -> None:
    """Names on the axes and a grid behind; no line at the top and at the right."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def svg(figure: "Figure", name: str, label: str) -> str:
    """The figure as one `<svg>` element with ids of its own, readable by its `label`."""
    held = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(held, format="svg", transparent=True, metadata=metadata)
    text = held.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    for marker, variable in VARIABLES.items():
        text = text.replace(marker, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip()
