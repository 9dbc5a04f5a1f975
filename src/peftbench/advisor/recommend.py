"""Which methods to take for a model, a task and limits: ranked by what cells say, among those that are known to fit.

What a method will cost is not looked for here: it is handed in, with what is not known left out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from peftbench.advisor.evidence_similarity import EvidenceCell, Place, ScoredMethod, nearness
from peftbench.advisor.score_model import Guess, ScoreModel
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
"""What may come first, and the cost that it means."""
WITHIN = 2.0
"""Points of expected score that are given up for a lower cost, unless it is said."""

SAME = Guess(0.0, 0.0)
"""What the best is behind itself."""
FitVerdict = Literal["fits", "does not fit", "not known", "refused"]


@dataclass(frozen=True)
class Question:
    """What is asked: where, under which limits (`peftbench.core.costs.LIMITS`: at most), and what comes first.

    `prefer` is one of `PREFERENCES` or a set of weights of PSCP. With a cost first, methods that are expected within so
    many points of the best of those that fit come by that cost, the others after them by score.
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
    """What a method will cost on the model that is asked about, by column of the table; what is not known is left out.

    `refused`: why it cannot be used there. `why`: why some of its costs are not known.
    """

    costs: Mapping[str, float] = field(default_factory=dict)
    refused: str = ""
    why: str = ""


@dataclass(frozen=True)
class Support:
    """What is known of a method: of all its cells, and of those of the kind of task that is asked about.

    `ahead`: in how many of those it was above the mean of the methods; `first`: in how many it was best. `ids` are
    rows, nearest cell first; `seeds` the fewest of a cell; `failed` the runs without a score. `settings` is a row of
    the nearest cell.
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

    `behind` is by how much the highest expected score of those that fit is above its own; `tied`: its interval does not
    exclude 0. `rank` from 1, `None` unless it is known to fit. `pscp`, where weights are preferred, is of the expected
    score.
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
    """A method that is over some limits, and how much of each it needs."""

    method: str
    needed: Mapping[str, float]


@dataclass(frozen=True)
class Advice:
    """The answer by one sort of evidence. `options`: ranked first, then those that are not known to fit, then the rest.

    `unasked` are methods whose costs were not looked for. `places` are those of the evidence.
    """

    question: Question
    published: bool
    options: tuple[Option, ...]
    unasked: tuple[str, ...]
    places: tuple[Place, ...]

    @property
    def least(self) -> "Least | None":
        """Where no method fits: the one that exceeds the limits by the smallest factor, and what it would take."""
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
    """All methods that the evidence knows, by expected score."""
    found = model.advantage(place)
    return sorted(found, key=lambda label: (-found[label].mean, label))


def recommend(
    model: ScoreModel,
    question: Question,
    predicted: Mapping[str, Predicted],
    published: bool = False,
    full: Mapping[str, float] | str = "the costs of full fine-tuning are not known",
) -> Advice:
    """The ranked methods of those in `predicted`. One that is not known to be within a limit is never ranked.

    `full`: what full fine-tuning costs there in the units of PSCP, or why that is not known, for weights that need it.
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
    """What the cells know of a method, seen from a place. Raises `IndexError` for a method that none has."""

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
    """Options that fit, in order, each with its distance to the highest expected score."""
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
    # The level of the cell is the same for both, and falls out.
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
