"""Remarks on the data: truncated rows, training rows that are also test rows, missing labels."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftbench.studies._figure_style import Style
from peftbench.studies._run_labels import measured_runs
from peftbench.studies.presentation_blocks import Section
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd

ORDER = 10
ABOUT = "Properties of the data that affect how scores should be read."


def analyse(data: RunData) -> list[dict[str, Any]] | None:
    """Return the remarks on the rows of each task, once for all runs that share one; `None` without remarks."""
    table = measured_runs(data.table)
    return (_remarks(table) or None) if "data_remarks" in table else None


def present(found: list[dict[str, Any]], _styles: Mapping[str, Style]) -> Section:
    """Return a section with a line per remark."""
    lines = tuple(f"{one['task']}, {_sizes(one['sizes'])}: {one['remark']}{_others(one['others'])}" for one in found)
    return Section("data", "Rows", ABOUT, remarks=lines, data=found)


def _remarks(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the remarks; those that differ only in their numbers are merged, with the text of the first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    rows = table[["task", "size", "seed", "data_remarks"]].dropna()
    for row in rows.sort_values(["task", "size", "seed"], key=lambda column: column.astype(str)).to_dict("records"):
        for remark in json.loads(row["data_remarks"]):
            kind = (row["task"], re.sub(r"[\d.,]+", "#", remark))
            first = {"task": row["task"], "remark": remark, "sizes": [], "others": set()}
            one = found.setdefault(kind, first)
            if row["size"] not in one["sizes"]:
                one["sizes"].append(row["size"])
            if remark != one["remark"]:
                one["others"].add(remark)
    return [one | {"others": sorted(one["others"])} for one in found.values()]


def _sizes(sizes: list[Any]) -> str:
    return f"{', '.join(map(str, sizes))} training rows"


def _others(others: list[str]) -> str:
    return f" (and {len(others)} more like it, by size and seed)" if others else ""
