"""How soon training is done, from the learning curves that runs keep, and beside full fine-tuning of the same cell.

Of each run: the steps, tokens and seconds of training up to the validation of the lowest loss, and up to the first one
within 1 % of it. Nothing is interpolated between validations, so a figure is one of the validation's own. Ratios to
full fine-tuning are of the same task, size and seed; Pu et al. 2023 (arXiv 2304.14999, figure 1) compare run time in
this way. A run whose lowest loss is that of its last validation might have gone lower: its figures are the least that
it would have needed, and such runs are counted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean, variance
from typing import TYPE_CHECKING

from peftbench.studies.coverage import MissingCell
from peftbench.studies.model_selection import compared
from peftbench.studies.run_labels import validated_on
from peftbench.studies.train_sizes import in_order

if TYPE_CHECKING:
    import pandas as pd

WITHIN = 0.01
"""The share of the lowest loss by which a loss may be above it and count as near."""
FEWEST_VALIDATIONS = 5
"""In the longest curve of a size. With fewer, a figure tells little more than at which part of training it is."""
MEASURES = ("steps", "tokens", "seconds")
GOALS = ("near", "best")

Cell = tuple[str, int]
"""Task and seed."""
Point = tuple[float, float, float, float]
"""Of a curve: step, tokens, seconds, validation loss."""


@dataclass(frozen=True)
class Reached:
    """What a run took to come near its lowest validation loss, and to that loss, by `MEASURES`.

    `last`: the lowest was that of the last validation. `on`: what the loss is of; losses on others are not comparable.
    """

    near: Mapping[str, float]
    best: Mapping[str, float]
    loss: float
    last: bool
    on: str = ""


@dataclass(frozen=True)
class Ratio:
    """A geometric mean over cells of what a method took, as a multiple of what full fine-tuning took.

    The 95 % interval is Student's t over the logarithms of `cells` cells; `None` where there is one.
    """

    mean: float
    low: float | None
    high: float | None
    cells: int


@dataclass(frozen=True)
class Pace:
    """A method at one size: what its runs took, by goal and measure, as a geometric mean, and beside full.

    Empty where it lacks cells that are compared; these stand in `missing`. `loss` is the ratio of the lowest losses: a
    method that learns little is soon near a loss that is high; there is none where losses are not of the same text and
    rows. `still` of `runs` runs had their lowest loss at their
    last validation.
    """

    method: str
    taken: Mapping[tuple[str, str], float]
    ratios: Mapping[tuple[str, str], Ratio]
    loss: Ratio | None
    runs: int
    still: int
    missing: tuple[MissingCell, ...]


@dataclass(frozen=True)
class Convergence:
    """The methods that train, of a model, machine class and train size. `full`: whom the ratios are to, if known.

    The cells compared are those of full fine-tuning; without it those that any method has.
    """

    model: str
    machine_class: str
    size: str
    full: str | None
    validations: tuple[int, int]
    paces: tuple[Pace, ...]


def reached(points: Sequence[Point]) -> Reached | None:
    """What the run of a curve took, `None` without a finite loss.

    Of several validations with the lowest loss the first counts, as it does for the step that is tested.
    """
    curve = sorted(point for point in points if math.isfinite(point[3]))
    if not curve:
        return None
    lowest = min(loss for *_, loss in curve)
    first = next(point for point in curve if point[3] == lowest)
    near = next(point for point in curve if point[3] <= lowest + WITHIN * abs(lowest))
    soon, best = (dict(zip(MEASURES, point[:3], strict=True)) for point in (near, first))
    return Reached(soon, best, loss=lowest, last=first is curve[-1])


def geometric(ratios: Sequence[float]) -> Ratio:
    """The geometric mean of positive ratios with its interval. Raises `ValueError` without any."""
    from scipy.special import stdtrit

    logs, n = [math.log(ratio) for ratio in ratios], len(ratios)
    if not logs:
        raise ValueError("a mean needs at least one ratio")
    mean = fmean(logs)
    if n == 1:
        return Ratio(math.exp(mean), None, None, n)
    half = float(stdtrit(n - 1, 0.975)) * math.sqrt(variance(logs) / n)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n)


def convergences(table: "pd.DataFrame", curves: "pd.DataFrame") -> tuple[Convergence, ...]:
    """The convergence of every model, machine class and train size that has a curve of `FEWEST_VALIDATIONS` points.

    `table` has one row per run (`peftbench.table`), `curves` one per validation
    (`peftbench.results.store.Store.curves`). Methods are compared over the same cells or not at all; methods that train
    nothing have no curve and no row.
    """
    runs = compared(table)
    trained = runs.groupby("label")["trainable_parameters"].transform("max") != 0
    points = curves.groupby("id")[["step", "tokens", "seconds", "validation_loss"]]
    found = {str(id_): list(held.itertuples(index=False, name=None)) for id_, held in points}
    made = []
    for (model, machine, size), here in runs[trained].groupby(["model", "machine_class", "size"]):
        counts = [len(found[id_]) for id_ in here["id"] if id_ in found]
        if max(counts, default=0) >= FEWEST_VALIDATIONS:
            names = sorted(set(here.loc[here["method"] == "full", "label"]))
            full = names[0] if len(names) == 1 else None
            span = (min(counts), max(counts))
            made.append(Convergence(str(model), str(machine), str(size), full, span, _paces(here, found, full)))
    return tuple(sorted(made, key=lambda each: (each.model, each.machine_class, in_order(each.size))))


def _paces(runs: "pd.DataFrame", curves: Mapping[str, list[Point]], full: str | None) -> tuple[Pace, ...]:
    """The methods in the order of the steps they took to come near, those that lack a cell last."""
    cells = {str(label): _cells(own, curves) for label, own in runs.groupby("label")}
    held = {label: {at: one for at, one in own.items() if not isinstance(one, str)} for label, own in cells.items()}
    every = sorted({at for own in held.values() for at in own})
    whole = held.get(full or "", {})
    paces = []
    for label, own in held.items():
        required = every if label == full or not whole else sorted(whole)
        missing = tuple(MissingCell(*at, str(cells[label].get(at, "absent"))) for at in required if at not in own)
        # Full fine-tuning is what cells are chosen by: those that it lacks are named and do not count.
        compared_at = [] if missing and label != full else [at for at in required if at in own]
        paces.append(_pace(label, [(own[at], whole.get(at)) for at in compared_at], missing))
    return tuple(sorted(paces, key=lambda pace: (pace.taken.get(("near", "steps"), math.inf), pace.method)))


def _cells(runs: "pd.DataFrame", curves: Mapping[str, list[Point]]) -> dict[Cell, Reached | str]:
    """What each cell of a method took, or what is wrong with it."""
    ended: dict[Cell, list[tuple[str, str]]] = {}
    for task, seed, id_, status in zip(*(runs[name] for name in ("task", "seed", "id", "status")), strict=True):
        ended.setdefault((task, int(seed)), []).append((id_, status))
    on = dict(
        zip(zip(runs["task"], runs["seed"].astype(int), strict=True), validated_on(runs["training"]), strict=True)
    )
    cells = {at: _cell(here, curves) for at, here in sorted(ended.items())}
    return {at: one if isinstance(one, str) else replace(one, on=on[at]) for at, one in cells.items()}


def _cell(ended: Sequence[tuple[str, str]], curves: Mapping[str, list[Point]]) -> Reached | str:
    """`ended`: id and status of each run of the cell."""
    good = [id_ for id_, status in ended if status == "ok"]
    if not good:
        return ended[-1][1]
    if len(good) > 1:
        return f"{len(good)} runs of one cell, select one"
    return reached(curves.get(good[0], [])) or "no learning curve"


def _pace(method: str, pairs: Sequence[tuple[Reached, Reached | None]], missing: tuple[MissingCell, ...]) -> Pace:
    taken: dict[tuple[str, str], float] = {}
    ratios: dict[tuple[str, str], Ratio] = {}
    paired = [(one, other) for one, other in pairs if other is not None]
    for goal, measure in product(GOALS, MEASURES):
        own = [getattr(one, goal)[measure] for one, _ in pairs]
        if own and min(own) > 0:
            taken[goal, measure] = geometric(own).mean
            ratio = _ratio([(getattr(one, goal)[measure], getattr(other, goal)[measure]) for one, other in paired])
            ratios |= {(goal, measure): ratio} if ratio else {}
    comparable = all(one.on == other.on for one, other in paired)
    loss = _ratio([(one.loss, other.loss) for one, other in paired]) if comparable else None
    return Pace(method, taken, ratios, loss, len(pairs), sum(one.last for one, _ in pairs), missing)


def _ratio(pairs: Sequence[tuple[float, float]]) -> Ratio | None:
    """The mean ratio of pairs; `None` without any, and where one is not positive."""
    if not pairs or min(map(min, pairs)) <= 0:
        return None
    return geometric([one / other for one, other in pairs])
