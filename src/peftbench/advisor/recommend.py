"""Ranking of the methods for a model, a task and limits, by evidence cells, among the methods known to fit.

The costs of methods are inputs; unknown costs are left out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from peftbench.advisor.evidence_similarity import EvidenceCell, Place, ScoredMethod, nearness
from peftbench.advisor.score_prediction import Guess, ScoreModel
from peftbench.core.costs import LIMITS
from peftbench.core.registry import did_you_mean
from peftbench.studies._pscp_costs import Paid, paid, penalised, pscp_constants
from peftbench.studies._pscp_weights import WeightSet

PREFERENCES = {
    "quality": "",
    "memory": "peak_memory_bytes",
    "time": "train_seconds",
    "speed": "latency_ms",
    "size": "adapter_bytes",
}
"""Ranking criteria, each with its cost."""
WITHIN = 2.0
"""Default number of points of expected score that may be lost for a lower cost."""

SAME = Guess(0.0, 0.0)
"""The distance of the best method to itself."""
FitVerdict = Literal["fits", "does not fit", "not known", "refused"]


@dataclass(frozen=True)
class Question:
    """A question: the place, upper limits of costs (`peftbench.core.costs.LIMITS`), and the ranking criterion.

    `prefer` is one of `PREFERENCES` or a weight set of PSCP. If it is a cost, methods with an expected score within
    `within` points of the best that fits are ranked first, by that cost; the others follow, by score.
    """

    place: Place
    limits: Mapping[str, float] = field(default_factory=dict)
    prefer: str | WeightSet = "quality"
    within: float = WITHIN

    def __post_init__(self) -> None:
        for name in self.limits:
            if name not in LIMITS:
                raise did_you_mean("cost to limit", name, list(LIMITS))
        if isinstance(self.prefer, str) and self.prefer not in PREFERENCES:
            raise did_you_mean("preference", self.prefer, list(PREFERENCES))


@dataclass(frozen=True)
class Predicted:
    """The predicted costs of a method on the model of the question, by column of the table, without unknown ones.

    `refused`: why it cannot be used. `why`: why some of its costs are unknown.
    """

    costs: Mapping[str, float] = field(default_factory=dict)
    refused: str = ""
    why: str = ""


@dataclass(frozen=True)
class Support:
    """The evidence for a method: its number of cells, and of cells of the question's kind of task (`of_kind`).

    In `ahead` of the latter it is above the mean of the methods, in `first` it is best. `ids` are rows, nearest cell
    first; `seeds` is the smallest number of seeds of a cell; `failed` is the number of runs without a score; `settings`
    is a row of the nearest cell.
    """

    cells: int
    of_kind: int
    ahead: int
    first: int
    seeds: int
    failed: int
    ids: tuple[str, ...]
    nearest: Place
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Option:
    """A method: its expected score and advantage over the mean of the methods, its costs, and whether it fits.

    `behind` is the highest expected score of the methods that fit minus its own; `tied`: the interval of `behind`
    contains 0. `rank` starts at 1 and is `None` unless the method is known to fit. `pscp` is computed from the expected
    score if weights are preferred.
    """

    method: str
    score: Guess
    advantage: Guess
    support: Support
    costs: Mapping[str, float]
    verdict: FitVerdict
    why: str = ""
    rank: int | None = None
    behind: Guess = SAME
    tied: bool = True
    pscp: float | None = None


@dataclass(frozen=True)
class Least:
    """A method that exceeds some limits, and its value for each of them."""

    method: str
    needed: Mapping[str, float]


@dataclass(frozen=True)
class Advice:
    """The answer from one kind of evidence. `options`: ranked methods, then those with unknown costs, then the rest.

    `unasked` are methods whose costs were not forecast. `places` are the places of the evidence.
    """

    question: Question
    published: bool
    options: tuple[Option, ...]
    unasked: tuple[str, ...]
    places: tuple[Place, ...]

    @property
    def least(self) -> "Least | None":
        """If no method fits, the one that exceeds the limits by the smallest factor."""
        over = [
            Least(option.method, {cost: option.costs[cost] for cost in self._exceeded(option)})
            for option in self.options
            if option.verdict == "does not fit"
        ]
        limits = self.question.limits
        return min(
            over if not self.ranked else (),
            key=lambda least: (max(value / limits[cost] for cost, value in least.needed.items()), least.method),
            default=None,
        )

    def _exceeded(self, option: Option) -> list[str]:
        return [cost for cost, most in self.question.limits.items() if option.costs.get(cost, -math.inf) > most]

    @property
    def ranked(self) -> tuple[Option, ...]:
        """The methods that can be recommended, best first."""
        return tuple(option for option in self.options if option.rank)


def known_methods(model: ScoreModel, place: Place) -> list[str]:
    """Return all methods in the evidence, the highest expected score first."""
    found = model.advantage(place)
    return sorted(found, key=lambda label: (-found[label].mean, label))


def recommend(
    model: ScoreModel,
    question: Question,
    predicted: Mapping[str, Predicted],
    published: bool = False,
    full: Mapping[str, float] | str = "the costs of full fine-tuning are unknown",
) -> Advice:
    """Rank the methods in `predicted`. A method that is not known to be within all limits is not ranked.

    `full`: the costs of full fine-tuning in the units of PSCP, or why they are unknown, for weights that need them.
    """
    level, expected = model.level(question.place), model.advantage(question.place)
    options = [
        _judged(
            label, question, predicted[label], (level, expected[label]), support(model.cells, label, question.place)
        )
        for label in known_methods(model, question.place)
        if label in predicted
    ]
    ranked = _ranked([option for option in options if option.verdict == "fits"], question, full)
    others = sorted((option for option in options if option.verdict != "fits"), key=lambda o: o.verdict != "not known")
    return Advice(
        question,
        published,
        (*ranked, *others),
        tuple(label for label in known_methods(model, question.place) if label not in predicted),
        tuple(cell.place for cell in model.cells),
    )


def _judged(
    label: str, question: Question, predicted: Predicted, guesses: tuple[Guess, Guess], support: Support
) -> Option:
    level, advantage = guesses
    verdict, why = _verdict(question.limits, predicted)
    score = Guess(level.mean + advantage.mean, math.hypot(level.sd, advantage.sd))
    return Option(label, score, advantage, support, dict(predicted.costs), verdict, why)


def _verdict(limits: Mapping[str, float], predicted: Predicted) -> tuple[FitVerdict, str]:
    if predicted.refused:
        return "refused", predicted.refused
    known = {cost: value for cost, value in predicted.costs.items() if not math.isnan(value)}
    over = [cost for cost, most in limits.items() if cost in known and known[cost] > most]
    if over:
        return "does not fit", ", ".join(over)
    lacking = [cost for cost in limits if cost not in known]
    if lacking:
        return "not known", ", ".join(lacking) + (f": {predicted.why}" if predicted.why else "")
    return "fits", predicted.why


def support(cells: Sequence[EvidenceCell], label: str, place: Place) -> Support:
    """Return the evidence for a method at a place. Raises `IndexError` if no cell has the method."""

    def near(cell: EvidenceCell) -> tuple[Any, ...]:
        alike = (cell.place.task == place.task) + cell.place.kin(place)
        return (-alike * nearness(cell.place, place), -nearness(cell.place, place), str(cell.place))

    held = sorted((cell for cell in cells if label in cell.scores), key=near)
    runs: list[ScoredMethod] = [cell.scores[label] for cell in held]
    kin = [cell for cell in held if cell.place.kin(place)]
    means = [sum(s.score for s in cell.scores.values()) / len(cell.scores) for cell in kin]
    return Support(
        cells=len(held),
        of_kind=len(kin),
        ahead=sum(cell.scores[label].score > mean for cell, mean in zip(kin, means, strict=True)),
        first=sum(cell.scores[label].score >= max(s.score for s in cell.scores.values()) for cell in kin),
        seeds=min(run.seeds for run in runs),
        failed=sum(run.failed for run in runs),
        ids=tuple(dict.fromkeys(id_ for run in runs for id_ in run.ids)),
        nearest=held[0].place,
        settings=runs[0].first,
    )


def _ranked(options: Sequence[Option], question: Question, full: Mapping[str, float] | str) -> list[Option]:
    """Return the options that fit, in order, each with its distance to the highest expected score."""
    if not options:
        return []
    best = max(options, key=lambda option: (option.advantage.mean, option.method))
    told = [replace(option, **_distance(option, best)) for option in options]
    if isinstance(question.prefer, WeightSet):
        told = _with_pscp(told, question.prefer, full)
        order = [(-math.inf if o.pscp is None else o.pscp) for o in told]
        found = [
            o for _, o in sorted(zip(order, told, strict=True), key=lambda p: (-p[0], -p[1].score.mean, p[1].method))
        ]
    else:
        cost = PREFERENCES[question.prefer]
        found = sorted(told, key=lambda o: _order(o, cost, question.within))
    return [replace(option, rank=rank) for rank, option in enumerate(found, 1)]


def _distance(option: Option, best: Option) -> dict[str, Any]:
    if option.method == best.method:
        return {"behind": SAME, "tied": True}
    # The level of the cell is the same for both and cancels.
    behind = Guess(best.advantage.mean - option.advantage.mean, math.hypot(best.advantage.sd, option.advantage.sd))
    return {"behind": behind, "tied": behind.mean <= behind.half}


def _order(option: Option, cost: str, within: float) -> tuple[Any, ...]:
    good = bool(cost) and option.behind.mean <= within
    return (not good, option.costs.get(cost, math.inf) if good else 0.0, option.behind.mean, option.method)


def _with_pscp(options: Iterable[Option], weights: WeightSet, full: Mapping[str, float] | str) -> list[Option]:
    held: dict[str, tuple[Option, Paid]] = {
        o.method: (o, paid(min(max(o.score.mean, 0.0), 100.0), dict(o.costs), None)) for o in options
    }
    methods = {method: one for method, (_, one) in held.items()}
    found = penalised(weights, methods, pscp_constants(weights, methods, full))
    return [
        replace(o, pscp=found[m].value, why="; ".join(filter(None, [o.why, found[m].reason])))
        for m, (o, _) in held.items()
    ]
