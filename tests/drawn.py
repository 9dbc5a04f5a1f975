"""What tests ask of a figure: its data, and the texts that it shows."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import altair as alt

from peftbench.report import figures
from peftbench.studies.presentation_blocks import Figure


def data_rows(figure: Figure, *fields: str) -> list[dict[str, Any]]:
    """The rows of data that have all of some fields."""
    json.dumps(figure.spec, allow_nan=False)
    return [row for held in figure.spec["datasets"].values() for row in held if row.keys() >= set(fields)]


def texts(figure: Figure) -> list[str]:
    """The texts of a figure that is valid Vega-Lite and is drawn."""
    alt.Chart.from_dict(dict(figure.spec))
    root = ET.fromstring(figures.svg(figure))
    assert root.tag.endswith("svg")
    return [text for element in root.iter() if (text := "".join(element.itertext())) and len(element) == 0]
