"""Placement ablation: one method on several choices of layers and modules, with all other arguments equal.

Placements are compared like methods: over the same tasks and seeds, or not at all. Only cells on which at least two
placements were run are used; a cell that another grid ran for one placement only is ignored.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from peftbench.core.jsonable import to_json
from peftbench.core.registry import UserError
from peftbench.methods import METHODS
from peftbench.results.runs_table import arguments
from peftbench.stats.intervals import Estimate, Interval, Scores, cell, difference, over_tasks
from peftbench.stats.paired_tests import Verdict, judge_differences
from peftbench.studies._figure_style import COLOURS, PATCH, WIDTH, Rows, Style, chart, tooltip, vega_spec
from peftbench.studies._missing_cells import MissingCell, cells_of, good_of, missing_of, scores_of
from peftbench.studies._text_format import ABSENT, count_text, interval_text, lacking_text
from peftbench.studies.presentation_blocks import Figure, Section, Table
from peftbench.studies.study_input import RunData

if TYPE_CHECKING:
    import pandas as pd

BASE = "none"
"""The method that trains nothing; gains are measured from its score."""
WHERE = ("layers", "modules")


@dataclass(frozen=True)
class Placement:
    """One choice of layers and modules.

    `score` is the mean over tasks, or `None` if cells are `missing`. `per_million`: points gained over `none` per
    million trainable parameters, or `None` if `none` lacks a cell. `to_full`: difference to the full placement in
    points, paired by task, seed and test row. `verdict`: the result for this difference after Holm's correction over
    the placements; a tie if the interval is unknown. Both are `None` for the full placement itself.
    """

    layers: str
    modules: str
    score: Interval | None
    parameters: float | None
    per_million: Interval | None
    to_full: Interval | None
    verdict: Verdict | None
    missing: tuple[MissingCell, ...]

    def __str__(self) -> str:
        return f"{self.layers}: {self.modules}"


@dataclass(frozen=True)
class Ablation:
    """The placements of one method with fixed other arguments, the full placement first.

    `full` is the placement on all layers. If there are several, the one on `all-linear` is preferred, then the one on
    the method's default modules, then the first by name. `base`: whether `none` has all cells of the placements.
    """

    method: str
    tasks: tuple[str, ...]
    placements: tuple[Placement, ...]
    full: Placement | None
    base: bool


@dataclass(frozen=True)
class _Variant:
    """The runs of one placement; `own`: whether it uses the method's default modules."""

    layers: str
    modules: str
    own: bool
    runs: "pd.DataFrame"


def ablations(runs: "pd.DataFrame") -> list[Ablation]:
    """Return the ablation of each method of a group of runs (`peftbench.studies._comparable_groups`), by name.

    Methods are left out if no placement has a score on a cell on which another placement was run.
    """
    families: dict[str, list[_Variant]] = {}
    for _, own in runs.groupby(["method", "method_arguments"]):
        method, text = map(str, own[["method", "method_arguments"]].iloc[0])
        given = arguments(text)
        rest = ", ".join(f"{key}={json.dumps(value)}" for key, value in given.items() if key not in WHERE)
        default = _default(method)
        layers, modules = (_words(given.get(key, default.get(key))) for key in WHERE)
        variant = _Variant(layers, modules, "modules" not in given, own)
        families.setdefault(f"{method}({rest})" if rest else method, []).append(variant)
    base = runs[runs["method"] == BASE]
    found = [_ablation(name, family, base) for name, family in sorted(families.items())]
    return [one for one in found if one.tasks]


def _default(method: str) -> Mapping[str, Any]:
    """Return the default arguments of a method; empty for a method that is not registered here."""
    try:
        parameters = METHODS[method.partition(" [")[0]].parameters
    except UserError:
        return {}
    return {name: one.default for name, one in parameters.items()}


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "default" if value is None else str(value)


def _ablation(name: str, family: Sequence[_Variant], base: "pd.DataFrame") -> Ablation:
    tried = Counter(chain.from_iterable(cells_of(variant.runs) for variant in family))
    scored = set(chain.from_iterable(cells_of(good_of(variant.runs)) for variant in family))
    cells = sorted(at for at in scored if tried[at] > 1)
    untouched = None if missing_of(base, cells) else _of(base, cells)
    first = _full(family)
    full = None if first is None or missing_of(first.runs, cells) else _of(first.runs, cells)
    ordered = sorted(family, key=lambda v: (v is not first, v.layers != "all", v.layers, v.modules))
    held = [_of(v.runs, cells) if cells and not missing_of(v.runs, cells) else None for v in ordered]
    apart = [None if v is first else _over(scores, full) for v, scores in zip(ordered, held, strict=True)]
    verdicts = iter(judge_differences([one for one in apart if one]))
    told = [(one.interval(), next(verdicts).verdict) if one else (None, None) for one in apart]
    placements = tuple(
        _placement(variant, missing_of(variant.runs, cells), (scores, untouched), against)
        for variant, scores, against in zip(ordered, held, told, strict=True)
    )
    tasks = tuple(sorted({task for task, _ in cells}))
    return Ablation(name, tasks, placements, placements[0] if first else None, untouched is not None)


def _full(family: Sequence[_Variant]) -> _Variant | None:
    whole = [variant for variant in family if variant.layers == "all"]
    return min(whole, key=lambda v: (v.modules != "all-linear", not v.own, v.modules), default=None)


def _of(runs: "pd.DataFrame", cells: Sequence[tuple[str, int]]) -> Scores:
    """Return the scores of these cells only; the runs must have all of them."""
    found: Scores = {}
    scores = scores_of(runs, ())
    for task, seed in cells:
        found.setdefault(task, {})[seed] = scores[task][seed]
    return found


def _placement(
    variant: _Variant,
    missing: tuple[MissingCell, ...],
    scores: tuple[Scores | None, Scores | None],
    to_full: tuple[Interval | None, Verdict | None],
) -> Placement:
    """Return a placement with its score and its gain; `scores` holds its own scores and those of `none`."""
    trained = good_of(variant.runs)["trainable_parameters"].median()
    parameters = None if trained != trained else float(trained)
    complete, gain = scores[0], _over(*scores)
    return Placement(
        layers=variant.layers,
        modules=variant.modules,
        score=over_tasks([cell(runs) for runs in complete.values()]).interval() if complete else None,
        parameters=parameters,
        per_million=_shared(gain, parameters / 1e6).interval() if gain and parameters else None,
        to_full=to_full[0],
        verdict=to_full[1],
        missing=missing,
    )


def _over(first: Scores | None, second: Scores | None) -> Estimate | None:
    if first is None or second is None:
        return None
    return over_tasks([difference(runs, second[task]) for task, runs in first.items()])


def _shared(gain: Estimate, among: float) -> Estimate:
    """Divide an estimate by a known number."""
    low, high = gain.bounds
    parts = tuple((v / among**2, df) for v, df in gain.parts)
    return Estimate(gain.mean / among, parts, gain.seeds, (low / among, high / among))


# Presentation

ORDER = 60
WIDE, HIGH = 120, 40
"""Width and height of a cell of the heat map in pixels."""
ABOUT = (
    "One method on several choices of layers and modules, with equal other arguments: mean over the same tasks and "
    "seeds with its 95 % interval. Win, loss and “not shown to differ” refer to the paired difference to the full "
    "placement, at 5 % after Holm's correction over the placements; the interval of the difference is not corrected."
)
LINES = "split(datum.label, ', ')"
"""Vega expression that splits an axis label into lines."""
PER_MILLION = f"Points per million: the gain over {BASE} per million trainable parameters, with its 95 % interval."
NO_BASE = f"No points per million: {BASE} was not run on all these tasks and seeds, so the gain is not known."
NO_FULL = "No differences: no placement covers all layers."


def analyse(data: RunData) -> list[tuple[str, Ablation]] | None:
    """Return the ablations of each group of runs with the group's name; `None` if no method has two placements."""
    return [(str(group), one) for group in data.groups for one in ablations(group.runs)] or None


def present(found: list[tuple[str, Ablation]], _styles: Mapping[str, Style]) -> Section:
    """Return a table per method, and a heat map of layers by modules."""
    sheets = [sheet for where, one in found for sheet in (_sheet(where, one), _matrix(where, one)) if sheet]
    return Section(
        name="ablation",
        title="Where to adapt",
        about=ABOUT,
        sheets=tuple(sheets),
        draw=lambda: (_heat(where, one) for where, one in found if any(place.score for place in one.placements)),
        remarks=tuple(
            f"{_title(where, one)}: {text}"
            for where, one in found
            for text in lacking_text((str(place), place.missing) for place in one.placements)
        ),
        data=[{"runs": where, **to_json(one)} for where, one in found],
    )


def _title(where: str, one: Ablation) -> str:
    return f"{one.method}, {where}"


def _sheet(where: str, one: Ablation) -> Table:
    headings = ["Layers", "Modules", "Score", "Trainable"]
    headings += [*(["Points per million"] if one.base else []), *(["To full placement", "Verdict"] if one.full else [])]
    lines = []
    for place in one.placements:
        line = [place.layers, place.modules, interval_text(place.score), _parameters(place)]
        line += [_signed(place.per_million)] if one.base else []
        line += [_signed(place.to_full), "full" if place is one.full else _verdict(place)] if one.full else []
        lines.append(tuple(line))
    notes = [f"Tasks: {', '.join(one.tasks)}.", PER_MILLION if one.base else NO_BASE, *([] if one.full else [NO_FULL])]
    return Table(_title(where, one), tuple(headings), 2, tuple(lines), " ".join(notes))


def _parameters(place: Placement) -> str:
    return ABSENT if place.parameters is None else count_text(place.parameters)


def _verdict(place: Placement) -> str:
    return "not shown to differ" if place.verdict == "tie" else place.verdict or ABSENT


def _signed(interval: Interval | None) -> str:
    """Format a difference with its interval in three digits; it may be large if there are few parameters."""
    return interval_text(interval, "+.3g")


def _matrix(where: str, one: Ablation) -> Table | None:
    """Return a table of layers by modules, or `None` if only one of them varies."""
    layers, modules, held = _cells(one)
    if min(len(layers), len(modules)) < 2:
        return None
    lines = [
        (row, *(interval_text(held[row, column].score) if (row, column) in held else ABSENT for column in modules))
        for row in layers
    ]
    return Table(f"Layers by modules: {_title(where, one)}", ("Layers", *modules), 1, tuple(lines))


def _cells(one: Ablation) -> tuple[list[str], list[str], dict[tuple[str, str], Placement]]:
    """Return layers and modules in the order of the placements, and the placement of each existing pair."""
    held = {(place.layers, place.modules): place for place in one.placements}
    return list(dict.fromkeys(row for row, _ in held)), list(dict.fromkeys(column for _, column in held)), held


def _heat(where: str, one: Ablation) -> Figure:
    """Return a heat map of the scores; stronger colours are higher scores, and the texts repeat the table."""
    import altair as alt

    layers, modules, held = _cells(one)
    rows: Rows = [
        {
            "layers": row,
            "modules": column,
            "score": place.score.mean if place.score else None,
            "said": f"{interval_text(place.score)}\n{_parameters(place)}",
            "parameters": place.parameters,
        }
        for (row, column), place in held.items()
    ]
    # One line per module, since names side by side would overlap the next column.
    x = alt.X("modules:N", sort=modules, title="Modules", axis=alt.Axis(labelAngle=0, labelExpr=LINES))
    y = alt.Y("layers:N", sort=layers, title="Layers")
    shown = tooltip(
        Layers="layers:N", Modules="modules:N", Score="score:Q|.1f", Trainable_parameters="parameters:Q|,.0f"
    )
    drawn = chart(rows)
    edges = drawn.mark_rect(style=PATCH).encode(x=x, y=y)
    # Light enough for the text of both themes to be readable.
    strength = alt.Opacity("score:Q", scale=alt.Scale(range=[0.08, 0.55], zero=False, nice=False), legend=None)
    cells = drawn.transform_filter("isValid(datum.score)").mark_rect(color=COLOURS[0])
    texts = drawn.mark_text(lineBreak="\n", dy=-6).encode(x=x, y=y, text="said:N", tooltip=shown)
    made = alt.layer(cells.encode(x=x, y=y, opacity=strength, tooltip=shown), edges, texts)
    made = made.properties(width=max(WIDTH, WIDE * len(modules)), height=alt.Step(HIGH))
    words = f"Scores of {one.method} by layers and modules, with the number of trainable parameters"
    return Figure(_title(where, one), vega_spec(made), words)
