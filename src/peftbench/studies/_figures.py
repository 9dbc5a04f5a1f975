"""What the figures of all studies share: the look of a method, and parts of Vega-Lite specifications.

A specification has its data and no `config`: ink, grid, fonts and the styles of marks that are in ink are the
renderer's. The same input gives the same specification.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from peftbench.stats.intervals import Interval

if TYPE_CHECKING:
    import altair as alt

EncodingChannel = TypeVar("EncodingChannel", "alt.X", "alt.Y")

COLOURS = ("#0077bb", "#d55e00", "#009e73", "#b8579a", "#c98a00", "#33a0c8", "#8a7ad1")
"""Okabe and Ito's and Tol's colours for the colour-blind, those that hold on white and on near-black."""

STAR = "M0,-1L.225,-.309L.951,-.309L.363,.118L.588,.809L0,.382L-.588,.809L-.363,.118L-.951,-.309L-.225,-.309Z"
SHAPES = (
    "circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left", STAR
)  # fmt: skip
DASHES = ((1, 0), (5, 2), (6, 2, 1, 2), (1, 2))

REFERENCE, STRONG, PATCH = "reference", "strong", "patch"
"""Styles of marks without a method: a thin dotted line, a thick one, the edge of a cell."""

FADED = 0.15
"""The opacity of methods that are not chosen in a legend, where some are."""

WIDTH, HEIGHT = 600, 300
"""Pixels of a plot."""
ROW = 17
"""Pixels that a method takes in a legend or on an axis."""
MOST_TICKS = 10
"""Of an axis on which ticks are said outright."""

Rows = list[dict[str, Any]]
"""Data of a figure, each row by field."""


class Style(NamedTuple):
    """How a method looks: a colour, a symbol of Vega, and the lengths of dashes and gaps of its lines."""

    colour: str
    shape: str
    dash: tuple[int, ...]


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """A look for each method; 63 differ in colour and symbol before any repeats."""
    n = len(COLOURS)
    return {
        method: Style(COLOURS[i % n], SHAPES[(i + i // (n * len(SHAPES))) % len(SHAPES)], DASHES[i // n % len(DASHES)])
        for i, method in enumerate(sorted(set(methods)))
    }


class MethodEncodings(NamedTuple):
    """Encodings by the field `method`: of points, of lines, and of whatever has a colour alone."""

    point: dict[str, Any]
    line: dict[str, Any]
    plain: dict[str, Any]


def method_encodings(looks: Mapping[str, Style], *, legend: bool = True) -> MethodEncodings:
    """The encodings of some methods, with a legend in their order in which one can be chosen (`choosable`), or none."""
    import altair as alt

    names = list(looks)
    colours, shapes, dashes = zip(*looks.values(), strict=True)
    shown: dict[str, Any] = {"title": None} if legend else {"legend": None}
    plain: dict[str, Any] = {
        "color": alt.Color("method:N", scale=alt.Scale(domain=names, range=list(colours)), **shown)
    }
    if legend:
        plain["opacity"] = alt.when(_chosen()).then(alt.value(1)).otherwise(alt.value(FADED))
    shape = alt.Shape("method:N", scale=alt.Scale(domain=names, range=list(shapes)), **shown)
    dash = alt.StrokeDash("method:N", scale=alt.Scale(domain=names, range=list(map(list, dashes))), **shown)
    return MethodEncodings(plain | {"shape": shape}, plain | {"strokeDash": dash}, plain)


def choosable(points: "alt.Chart") -> "alt.Chart":
    """Points whose methods can be chosen in the legend; the others of the figure fade."""
    # A name, as Altair's own ones are counted from the start of the process.
    return points.properties(name="points").add_params(_chosen())


def lines_and_points(
    drawn: "alt.Chart", encoded: MethodEncodings, place: Mapping[str, Any], shown: "list[alt.Tooltip]", **line: Any
) -> "list[alt.Chart]":
    """The layers of a line for each method, and of a point for each row."""
    lines = drawn.mark_line(**line).encode(**place, **encoded.line)
    return [lines, choosable(drawn.mark_point(filled=True).encode(**place, **encoded.point, tooltip=shown))]


def _chosen() -> "alt.Parameter":
    import altair as alt

    return alt.selection_point(name="chosen", fields=["method"], bind="legend")


def chart(rows: Rows) -> "alt.Chart":
    """A chart of some rows of data."""
    import altair as alt

    return alt.Chart(alt.InlineData(values=rows))


def interval_ends(interval: Interval) -> dict[str, float | None]:
    """The fields of an interval."""
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def log_x(low: float, high: float, title: str, label: str = "format(datum.value, ',~r')") -> "alt.X":
    """A logarithmic axis from one positive number to another, with few round numbers on it.

    `label`: what writes `datum.value`, an expression of Vega.
    """
    import altair as alt

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    sets = [[digit * 10.0**power for power in powers for digit in digits] for digits in ((1, 2, 5), (1,))]
    shown = [[tick for tick in ticks if low <= tick <= high] for ticks in sets]
    ticks = next((each for each in shown if len(each) <= MOST_TICKS), shown[-1])
    axis = alt.Axis(labelExpr=label)
    return alt.X(
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        # Between two round numbers Vega finds its own.
        axis=axis if len(ticks) < 2 else alt.Axis(labelExpr=label, values=ticks),
        title=title,
    )


def of(channel: EncodingChannel, field: str) -> EncodingChannel:
    """An axis with the numbers of a field on it."""
    placed: EncodingChannel = channel.copy().field(field).type("quantitative")
    return placed


def tall_enough(methods: Iterable[str]) -> int:
    """The height of a plot that has a legend of these methods at its side."""
    return max(HEIGHT, ROW * len(set(methods)))


def tooltip(**fields: str) -> "list[alt.Tooltip]":
    """What is shown of a mark that is pointed at: by heading a field, and with `|` how its number is written."""
    import altair as alt

    made = [(heading.replace("_", " "), *field.partition("|")) for heading, field in fields.items()]
    return [alt.Tooltip(name, title=title, format=form) for title, name, _, form in made]


def vega_spec(chart: Any) -> dict[str, Any]:
    """The specification of a chart, checked by the schema of Vega-Lite."""
    made: dict[str, Any] = chart.to_dict()
    # Of Altair's default theme, and a web address that a page does not need.
    del made["config"], made["$schema"]
    return made
