"""Figures drawn: as SVG and PNG, and what a page needs to draw them itself, so that they answer to a pointer.

Ink and grid are CSS variables of the page where there is a page, so figures follow its light and its dark theme.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from peftbench.core.provenance import slug
from peftbench.results.store import NAME_LENGTH
from peftbench.studies import pscp_sensitivity
from peftbench.studies._figures import PATCH, REFERENCE, STRONG
from peftbench.studies._leaderboard_figures import learning_curves, score_cost
from peftbench.studies.report_blocks import Figure

if TYPE_CHECKING:
    from peftbench.studies.run_data import RunData

INK, GRID, PAPER = "#1c2430", "#d9dee5", "#ffffff"
"""Of a file, which has no theme."""
PAGE = (f"var(--ink, {INK})", f"var(--line, {GRID})", "transparent")
"""Of a page: its CSS variables."""
FONT = "Arial, Helvetica, Liberation Sans, sans-serif"
"""Of the same widths, so that a text has the room that it was measured to need."""
ONLY_INLINE: list[str] = []
"""Where data may be loaded from: nowhere."""
DOTTED = [1, 3]
MOST_METHODS = 10_000
"""Of a legend; without a number, Vega-Lite drops those after 30."""


def config(ink: str = INK, grid: str = GRID, paper: str = PAPER) -> dict[str, Any]:
    """How all figures look, as a `config` of Vega-Lite. No label is cut or dropped."""
    return {
        "aria": False,
        "background": paper,
        "font": FONT,
        "view": {"stroke": "transparent"},
        "axis": {
            "domainColor": grid,
            "gridColor": grid,
            "gridWidth": 0.6,
            "labelColor": ink,
            "labelFlush": False,
            "labelFontSize": 11,
            "labelLimit": 0,
            "tickColor": grid,
            "titleColor": ink,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titleLimit": 0,
        },
        "axisBand": {"grid": False},
        "axisQuantitative": {"tickCount": 6},
        "header": {"labelColor": ink, "labelFontSize": 12, "labelLimit": 0, "titleColor": ink},
        "legend": {
            "labelColor": ink,
            "labelLimit": 0,
            "labelFontSize": 12,
            "symbolLimit": MOST_METHODS,
            "symbolOpacity": 1,
            "symbolSize": 70,
            "titleColor": ink,
        },
        "point": {"opacity": 1, "size": 35},
        "line": {"strokeWidth": 1.6},
        "rule": {"color": ink},
        "text": {"color": ink, "fontSize": 11},
        "tick": {"color": ink},
        "style": {
            REFERENCE: {"color": ink, "strokeDash": DOTTED, "strokeWidth": 1},
            STRONG: {"color": ink, "strokeWidth": 3},
            PATCH: {"fillOpacity": 0, "stroke": grid, "strokeWidth": 1},
        },
    }


def of_report(data: "RunData") -> list[Figure]:
    """All figures of a report, in its order."""
    found: list[Figure | None] = []
    for board in data.leaderboards:
        found += [score_cost(board, data.styles), *pscp_sensitivity.sensitivity_figures(board, data.styles)]
        found.append(learning_curves(board, data.compared, data.curves, data.styles))
    return [figure for figure in found if figure] + [figure for part in data.sections for figure in part.figures]


def svg(figure: Figure, colours: tuple[str, str, str] = (INK, GRID, PAPER)) -> str:
    """The figure as one `<svg>` element; the same figure, the same text."""
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(dict(figure.spec), config=config(*colours), allowed_base_urls=ONLY_INLINE)
    return text


def page_svg(figure: Figure) -> str:
    """The figure in the colours of the page that it stands in."""
    return svg(figure, PAGE)


def png(figure: Figure) -> bytes:
    """The figure in two pixels for each of its own."""
    import vl_convert

    data: bytes = vl_convert.svg_to_png(svg(figure), scale=2)
    return data


def files(data: "RunData") -> Iterator[tuple[str, bytes]]:
    """Names and contents of files: each figure of a report as SVG, as PNG, and as Vega-Lite to be changed by hand."""
    import altair as alt

    for number, figure in enumerate(of_report(data), start=1):
        name = f"{number:02}-{slug(figure.title)[:NAME_LENGTH]}"
        whole = {"$schema": alt.SCHEMA_URL, "config": config(), **figure.spec}
        yield f"{name}.svg", svg(figure).encode()
        yield f"{name}.png", png(figure)
        yield f"{name}.vl.json", (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode()


@cache
def runtime() -> str:
    """A script that defines `vegaEmbed` and asks no host for anything."""
    import vl_convert

    text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")
    return text
