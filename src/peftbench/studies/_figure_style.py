"""Shared parts of the figures of all studies: the styles of methods, and parts of Vega-Lite specifications.

A specification contains its data and no `config`: the renderer sets text colour, grid, fonts and the styles of marks
in text colour. The same input gives the same specification.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from peftbench.stats.intervals import Interval

if TYPE_CHECKING:
    import altair as alt

EncodingChannel = TypeVar("EncodingChannel", "alt.X", "alt.Y")

COLOURS = ("#0077bb", "#d55e00", "#009e73", "#b8579a", "#c98a00", "#33a0c8", "#8a7ad1")
"""Colour-blind safe colours of Okabe and Ito and of Tol that are readable on white and on near-black."""

STAR = "M0,-1L.225,-.309L.951,-.309L.363,.118L.588,.809L0,.382L-.588,.809L-.363,.118L-.951,-.309L-.225,-.309Z"
SHAPES = (
    "circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left", STAR
)  # fmt: skip
DASHES = ((1, 0), (5, 2), (6, 2, 1, 2), (1, 2))

REFERENCE, STRONG, PATCH = "reference", "strong", "patch"
"""Styles of marks without a method: a thin dotted line, a thick line, the edge of a cell."""

FADED = 0.15
"""Opacity of the other methods when some are selected in the legend."""

WIDTH, HEIGHT = 600, 300
"""Size of a plot in pixels."""
ROW = 17
"""Height of a method in a legend or on an axis, in pixels."""
MOST_TICKS = 10
"""Maximum number of explicit ticks on a logarithmic axis."""

Rows = list[dict[str, Any]]
"""Data of a figure: a list of rows, each a mapping of field to value."""


class Style(NamedTuple):
    """Style of a method: a colour, a Vega symbol, and the lengths of dashes and gaps of its lines."""

    colour: str
    shape: str
    dash: tuple[int, ...]


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return a style per method; the first 63 methods differ in colour and symbol."""
    n = len(COLOURS)
    return {
        method: Style(COLOURS[i % n], SHAPES[(i + i // (n * len(SHAPES))) % len(SHAPES)], DASHES[i // n % len(DASHES)])
        for i, method in enumerate(sorted(set(methods)))
    }


class MethodEncodings(NamedTuple):
    """Encodings by the field `method`: for points, for lines, and for marks that only have a colour."""

    point: dict[str, Any]
    line: dict[str, Any]
    plain: dict[str, Any]


def method_encodings(looks: Mapping[str, Style], *, legend: bool = True) -> MethodEncodings:
    """Return the encodings of methods; with `legend`, methods are listed in order and can be selected (`choosable`)."""
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
    """Return points whose methods can be selected in the legend; the other methods of the figure fade."""
    # A fixed name: Altair numbers its own names from the start of the process.
    return points.properties(name="points").add_params(_chosen())


def lines_and_points(
    drawn: "alt.Chart", encoded: MethodEncodings, place: Mapping[str, Any], shown: "list[alt.Tooltip]", **line: Any
) -> "list[alt.Chart]":
    """Return two layers: a line per method and a point per row."""
    lines = drawn.mark_line(**line).encode(**place, **encoded.line)
    return [lines, choosable(drawn.mark_point(filled=True).encode(**place, **encoded.point, tooltip=shown))]


def error_bars(drawn: "alt.Chart", low: str, encoded: MethodEncodings, **place: Any) -> "alt.Chart":
    """Return bars from the field `low` to the second field of its axis in `place`, for rows with a known interval."""
    known = drawn.transform_filter(f"isValid(datum.{low})")
    bars: alt.Chart = known.mark_errorbar(ticks=True).encode(**place, **encoded.plain)
    return bars


def _chosen() -> "alt.Parameter":
    import altair as alt

    return alt.selection_point(name="chosen", fields=["method"], bind="legend")


def chart(rows: Rows) -> "alt.Chart":
    import altair as alt

    return alt.Chart(alt.InlineData(values=rows))


def interval_ends(interval: Interval) -> dict[str, float | None]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def log_x(low: float, high: float, title: str, label: str = "format(datum.value, ',~r')") -> "alt.X":
    """Return a logarithmic axis from `low` to `high`, both positive, with few round ticks.

    `label` is the Vega expression that formats `datum.value`.
    """
    import altair as alt

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    sets = [[digit * 10.0**power for power in powers for digit in digits] for digits in ((1, 2, 5), (1,))]
    shown = [[tick for tick in ticks if low <= tick <= high] for ticks in sets]
    ticks = next((each for each in shown if len(each) <= MOST_TICKS), shown[-1])
    axis = alt.Axis(labelExpr=label)
    return alt.X(
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        # With fewer than two round ticks in the range, Vega chooses the ticks.
        axis=axis if len(ticks) < 2 else alt.Axis(labelExpr=label, values=ticks),
        title=title,
    )


def of(channel: EncodingChannel, field: str) -> EncodingChannel:
    """Return the axis for a quantitative field."""
    placed: EncodingChannel = channel.copy().field(field).type("quantitative")
    return placed


def tall_enough(methods: Iterable[str]) -> int:
    """Return the height in pixels of a plot with a legend of these methods next to it."""
    return max(HEIGHT, ROW * len(set(methods)))


def tooltip(**fields: str) -> "list[alt.Tooltip]":
    """Return tooltips from heading to field; a number format may follow the field after `|`."""
    import altair as alt

    made = [(heading.replace("_", " "), *field.partition("|")) for heading, field in fields.items()]
    return [alt.Tooltip(name, title=title, format=form) for title, name, _, form in made]


def vega_spec(chart: Any) -> dict[str, Any]:
    """Return the specification of a chart, validated against the Vega-Lite schema."""
    made: dict[str, Any] = chart.to_dict()
    # Altair's default theme, and a URL that pages do not need.
    del made["config"], made["$schema"]
    return made
