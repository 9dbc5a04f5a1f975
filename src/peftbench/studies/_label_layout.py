"""Where the labels of a figure go, so that none hides another. The figure must have been laid out (drawn) before."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox
    from numpy import float64
    from numpy.typing import NDArray

    Pixels = tuple[float, float] | NDArray[float64]

Labelled = tuple[str, float, float, str]
"""Text, x and y in data, colour."""


def label_points(axes: "Axes", points: Sequence[Labelled]) -> None:
    """Label points beside them: the nearest of some places that covers no point and no label, with a line if far."""
    taken = [_box(axes.transData.transform((x, y)), (12, 12)) for _, x, y, _ in points]
    for text, x, y, colour in points:
        label = axes.text(x, y, text, fontsize=9)
        size = label.get_window_extent()
        label.remove()
        distance, box = _free(axes.transData.transform((x, y)), (size.width, size.height), axes.bbox, taken)
        line = {"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 0, "shrinkB": 4} if distance > 15 else None
        axes.annotate(
            text,
            (x, y),
            (box.x0 + size.width / 2, box.y0 + size.height / 2),
            textcoords="figure pixels",
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
            arrowprops=line,
        )
        taken.append(box)


def _free(start: "Pixels", size: tuple[float, float], room: "Bbox", taken: Sequence["Bbox"]) -> tuple[float, "Bbox"]:
    """The first box, with its distance, that lies in the room and on nothing else; the very first if there is none."""
    tried = []
    for dx, dy in _offsets():
        side = (dx > 1) - (dx < -1)
        box = _box((start[0] + dx + side * size[0] / 2, start[1] + dy), size)
        tried.append((math.hypot(dx, dy), box))
        inside = room.x0 <= box.x0 <= box.x1 <= room.x1 and room.y0 <= box.y0 <= box.y1 <= room.y1
        if inside and not box.count_overlaps(taken):
            return tried[-1]
    return tried[0]


def _box(centre: "Pixels", size: tuple[float, float]) -> "Bbox":
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(centre[0] - size[0] / 2, centre[1] - size[1] / 2, *size)


def _offsets() -> Iterator[tuple[float, float]]:
    """Places to try, in pixels from the point, near ones first."""
    for radius in (9, 13, 20, 28, 38, 50, 64, 80):
        for angle in (0, 180, 45, -45, 135, -135, 90, -90, 22, -22, 158, -158):
            yield radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))


def label_line_ends(axes: "Axes", ends: Sequence[Labelled]) -> None:
    """Label the ends of lines in a column at the right, in the order of their ends and at least a line apart."""
    low, high = axes.get_ylim()
    gap = 11 / (axes.bbox.height * 72 / axes.figure.dpi)
    ordered = sorted(ends, key=lambda end: end[2])
    heights: list[float] = []
    for _, _, y, _ in ordered:
        heights.append(max((y - low) / (high - low), heights[-1] + gap if heights else 0.0))
    # Pushed over the top, they move down again, as far as the ones below leave room.
    ceiling = max(1.0, gap * (len(heights) - 1))
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - gap
    for (text, x, y, colour), height in zip(ordered, heights, strict=True):
        axes.annotate(
            text,
            (x, y),
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 1},
        )
