"""Rendering of figures as SVG and PNG, and the script with which a page draws them interactively.

In pages, text and grid colours are CSS variables, so figures follow the light and the dark theme.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from peftbench.core.provenance import slug
from peftbench.results.store import NAME_LENGTH
from peftbench.studies import pscp_sensitivity
from peftbench.studies._figure_style import PATCH, REFERENCE, STRONG
from peftbench.studies._leaderboard_figures import learning_curves, score_cost
from peftbench.studies.presentation_blocks import Figure

if TYPE_CHECKING:
    from peftbench.studies.study_input import RunData

INK, GRID, PAPER = "#1c2430", "#d9dee5", "#ffffff"
"""Text, grid and background colours of files, which have no theme."""
PAGE = (f"var(--ink, {INK})", f"var(--line, {GRID})", "transparent")
"""The same colours in pages, as CSS variables."""
FONT = "Arial, Helvetica, Liberation Sans, sans-serif"
"""Fonts with equal glyph widths, so that texts fit the space that was measured for them."""
ONLY_INLINE: list[str] = []
"""Hosts from which figures may load data: none."""
DOTTED = [1, 3]
MOST_METHODS = 10_000
"""Maximum number of legend entries; by default Vega-Lite drops entries after 30."""


def config(ink: str = INK, grid: str = GRID, paper: str = PAPER) -> dict[str, Any]:
    """Return the Vega-Lite `config` of all figures. No label is truncated or dropped."""
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
    """Return all figures of a report, in its order."""
    found: list[Figure | None] = []
    for board in data.leaderboards:
        found += [score_cost(board, data.styles), *pscp_sensitivity.sensitivity_figures(board, data.styles)]
        found.append(learning_curves(board, data.compared, data.curves, data.styles))
    return [figure for figure in found if figure] + [figure for part in data.sections for figure in part.figures]


def svg(figure: Figure, colours: tuple[str, str, str] = (INK, GRID, PAPER)) -> str:
    """Return the figure as one `<svg>` element; equal figures give equal text."""
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(dict(figure.spec), config=config(*colours), allowed_base_urls=ONLY_INLINE)
    return text


def page_svg(figure: Figure) -> str:
    """Return the figure as SVG in the colours of the page that contains it."""
    return svg(figure, PAGE)


def png(figure: Figure) -> bytes:
    """Return the figure as PNG at twice its nominal resolution."""
    import vl_convert

    data: bytes = vl_convert.svg_to_png(svg(figure), scale=2)
    return data


def files(data: "RunData") -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of files: each figure of a report as SVG, as PNG, and as an editable Vega-Lite file."""
    import altair as alt

    for number, figure in enumerate(of_report(data), start=1):
        name = f"{number:02}-{slug(figure.title)[:NAME_LENGTH]}"
        whole = {"$schema": alt.SCHEMA_URL, "config": config(), **figure.spec}
        yield f"{name}.svg", svg(figure).encode()
        yield f"{name}.png", png(figure)
        yield f"{name}.vl.json", (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode()


@cache
def runtime() -> str:
    """Return a script that defines `vegaEmbed` and makes no network requests."""
    import vl_convert

    text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")
    return text
