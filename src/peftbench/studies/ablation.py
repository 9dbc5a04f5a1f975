"""Where it pays to adapt: one method on several choices of layers and modules, all else alike.

Placements are compared as methods are: over the same tasks and seeds, or not at all. These are the cells that two
placements or more were tried on: what another grid asked of one of them alone says nothing about the others.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from peftbench.core.registry import UserError
from peftbench.methods import METHODS
from peftbench.results.store import arguments
from peftbench.stats.intervals import Estimate, Interval, Scores, cell, difference, over_tasks
from peftbench.stats.paired_tests import Verdict, judge
from peftbench.studies.coverage import MissingCell, cells_of, good_of, missing_of, scores_of

if TYPE_CHECKING:
    import pandas as pd

BASE = "none"
"""The method that trains nothing, from which gains are counted."""
WHERE = ("layers", "modules")


@dataclass(frozen=True)
class Placement:
    """One choice of layers and modules.

    `score` is the mean over tasks, `None` where cells are `missing`. `per_million`: points over `none` for a million
    trainable parameters, `None` where `none` lacks a cell. `to_full`: points over the full placement, paired by task,
    seed and test row; its `verdict` is after Holm's correction over the placements, a tie where the interval is
    unknown. Both are `None` for the full placement itself.
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
    """The placements of one method with one choice of its other arguments, the full one first.

    `full` is the placement on all layers; of several, that on `all-linear`, else on the method's own modules, else the
    first by name. `base`: whether `none` has all their cells.
    """

    method: str
    tasks: tuple[str, ...]
    placements: tuple[Placement, ...]
    full: Placement | None
    base: bool


@dataclass(frozen=True)
class _Variant:
    """The runs of one placement; `own`: on the modules that the method has by default."""

    layers: str
    modules: str
    own: bool
    runs: "pd.DataFrame"


def ablations(runs: "pd.DataFrame") -> list[Ablation]:
    """Every method of a group of runs (`peftbench.studies.groups`) that has several placements, by name.

    Those of which no placement has a score where another was tried are left out.
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
    """The values of arguments that are not given; none for a method that is not registered here."""
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
    verdicts = iter(judge([one for one in apart if one]))
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
    """The scores of these cells alone, which the runs have."""
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
    """A placement with its scores, beside those of `none`."""
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
    """An estimate divided by a known number."""
    low, high = gain.bounds
    parts = tuple((v / among**2, df) for v, df in gain.parts)
    return Estimate(gain.mean / among, parts, gain.seeds, (low / among, high / among))
