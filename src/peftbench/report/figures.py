"""Figures drawn: as SVG and PNG, and what a page needs to draw them itself, so that they answer to a pointer.

Ink and grid are CSS variables of the page where there is a page, so figures follow its light and its dark theme.
"""

from functools import cache
from typing import Any

from peftbench.studies._figures import PATCH, REFERENCE, STRONG
from peftbench.studies.blocks import Figure

INK, GRID = "#1c2430", "#d9dee5"
"""Of a file, which has no theme."""
PAGE_INK, PAGE_GRID = f"var(--ink, {INK})", f"var(--line, {GRID})"
FONT = "Arial, Helvetica, Liberation Sans, sans-serif"
"""Of the same widths, so that a text has the room that it was measured to need."""
ONLY_INLINE: list[str] = []
"""Where data may be loaded from: nowhere."""
DOTTED = [1, 3]


def config(ink: str, grid: str) -> dict[str, Any]:
    """How all figures look, as a `config` of Vega-Lite. No label is cut."""
    return {
        "aria": False,
        "background": "transparent",
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


def svg(figure: Figure, ink: str = INK, grid: str = GRID) -> str:
    """The figure as one `<svg>` element; the same figure, the same text."""
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(dict(figure.spec), config=config(ink, grid), allowed_base_urls=ONLY_INLINE)
    return text


def page_svg(figure: Figure) -> str:
    """The figure in the colours of the page that it stands in."""
    return svg(figure, PAGE_INK, PAGE_GRID)


@cache
def runtime() -> str:
    """A script that defines `vegaEmbed` and asks no host for anything."""
    import vl_convert

    text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")
    return text
