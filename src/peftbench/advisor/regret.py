"""Evaluation of the advisor: its regret on tasks that it has not seen, compared with simpler rules and an oracle.

Each task is left out in turn, with all its cells. Every rule picks one of the methods scored in a cell, using only the
cells of the other tasks. Methods that no other task has are ignored. The regret of a rule is the score of the oracle
minus the score of the picked method, in points.

The oracle picks the highest mean score over the seeds of the cell itself. This maximum is biased upwards (the winner's
curse), so every regret includes points that no rule could gain. The rule "best of the other seeds" estimates them: it
picks a method by all seeds of the same cell but one, and is judged on the remaining seed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from peftbench.advisor.evidence_similarity import EvidenceCell, Place
from peftbench.advisor.recommend import known_methods
from peftbench.advisor.score_prediction import NORMAL, ScoreModel, learn
from peftbench.stats.intervals import UNBOUNDED, Bounds, Interval, Run, cell

ADVISOR, ALWAYS, OVERALL, RANDOM, ORACLE, SEEDS = (
    "advisor",
    "always lora",
    "overall best of the other tasks",
    "any method (mean)",
    "oracle",
    "best of the other seeds",
)


@dataclass(frozen=True)
class Policy:
    """A rule: its mean regret in points over tasks, and its regret minus the advisor's on the same tasks."""

    name: str
    regret: Interval | None
    over_advisor: Interval | None
    tasks: int


@dataclass(frozen=True)
class RegretReport:
    """Rules by regret, and the picks and losses per cell.

    `covered`: the share of the scores of left-out tasks, minus their cell's mean, within the expected 95 % interval.
    """

    policies: tuple[Policy, ...]
    picks: tuple[Mapping[str, object], ...]
    covered: float | None
    cells: int


def leave_one_task_out(cells: Sequence[EvidenceCell]) -> RegretReport | str:
    """Return the leave-one-task-out regret, or why there is none. It does not depend on the order of the cells."""
    usable = sorted((c for c in cells if len(c.scores) > 1), key=lambda c: str(c.place))
    tasks = sorted({c.place.task for c in usable})
    if len(tasks) < 3:
        return f"leaving a task out needs three tasks with two methods each, and there are {len(tasks)}"
    lost: dict[str, dict[str, list[tuple[float, float]]]] = {}
    picks: list[Mapping[str, object]] = []
    inside: list[bool] = []
    for task in tasks:
        model = learn([c for c in usable if c.place.task != task])
        for here in (_known(model, c) for c in usable if c.place.task == task):
            if len(here.scores) < 2:
                continue
            rules, found = _picks(model, here), _lost(model, here)
            inside += _inside(model, here)
            for rule, points in found.items():
                lost.setdefault(rule, {}).setdefault(task, []).append((points, found[ADVISOR]))
            picks.append(_told(here.place) | {"picks": rules, "regret": found})
    policies = [_policy(name, by_task) for name, by_task in lost.items()]
    policies.sort(key=lambda p: (p.regret.mean if p.regret else math.inf, p.name))
    return RegretReport(tuple(policies), tuple(picks), fmean(inside) if inside else None, len(picks))


def _known(model: ScoreModel, here: EvidenceCell) -> EvidenceCell:
    """Return a cell with only the methods that other tasks also have, since no rule could pick another."""
    known = {label for label, one in model.advantages.series.items() if len(one.values)}
    return replace(here, scores={label: one for label, one in here.scores.items() if label in known})


def _lost(model: ScoreModel, here: EvidenceCell) -> dict[str, float]:
    """Return the points that each rule loses in a cell."""
    best = max(one.score for one in here.scores.values())
    found = {rule: best - here.scores[label].score for rule, label in _picks(model, here).items()}
    return found | {RANDOM: best - fmean(s.score for s in here.scores.values()), ORACLE: 0.0} | _by_seeds(here)


def _told(place: Place) -> dict[str, object]:
    return {"task": place.task, "model": place.model, "size": place.size}


def _picks(model: ScoreModel, here: EvidenceCell) -> dict[str, str]:
    """Return the method of a cell that each rule picks."""
    order = [label for label in known_methods(model, here.place) if label in here.scores]
    found = {ADVISOR: order[0], OVERALL: _overall(model, order)}
    lora = [label for label in order if here.scores[label].method == "lora"]
    # Of several LoRA variants the default one; without it, the best on the other tasks.
    return found | ({ALWAYS: "lora" if "lora" in lora else _overall(model, lora)} if lora else {})


def _overall(model: ScoreModel, labels: Sequence[str]) -> str:
    """Return the method with the highest mean over the cells of the other tasks, minus the level of each cell."""
    return max(labels, key=lambda label: (_mean(model, label), label))


def _mean(model: ScoreModel, label: str) -> float:
    return float(model.advantages.series[label].values.mean())


def _inside(model: ScoreModel, here: EvidenceCell) -> Iterable[bool]:
    """Return for each method whether its score minus the cell's mean is in its interval, widened by its own error."""
    expected = model.advantage(here.place)
    means = fmean(s.score for s in here.scores.values()), fmean(expected[m].mean for m in here.scores)
    return [
        abs(here.scores[m].score - means[0] - expected[m].mean + means[1])
        <= NORMAL * math.sqrt(expected[m].sd ** 2 + here.scores[m].variance)
        for m in here.scores
    ]


def _by_seeds(here: EvidenceCell) -> dict[str, float]:
    """Return the loss of picking by all seeds but one, judged on that one, relative to the oracle's pick."""
    held = {label: one.by_seed for label, one in here.scores.items()}
    shared = sorted(set.intersection(*(set(scores) for scores in held.values())))
    if len(shared) < 2:
        return {}

    def best(seeds: Sequence[int]) -> str:
        return max(held, key=lambda label: (fmean(held[label][s] for s in seeds), label))

    oracle = best(shared)
    return {SEEDS: fmean(held[oracle][s] - held[best([o for o in shared if o != s])][s] for s in shared)}


def _policy(name: str, lost: Mapping[str, Sequence[tuple[float, float]]]) -> Policy:
    """Return the mean regret over tasks with its interval; the regret of a task is the mean over its cells."""
    own = {task: fmean(points for points, _ in cells) for task, cells in lost.items()}
    more = {task: fmean(points - advisor for points, advisor in cells) for task, cells in lost.items()}
    # A regret is not below 0, except that of a pick that is judged on other seeds.
    bounds = UNBOUNDED if name == SEEDS else (0.0, math.inf)
    return Policy(name, _over(own, bounds), _over(more), len(lost))


def _over(tasks: Mapping[str, float], bounds: Bounds = UNBOUNDED) -> Interval | None:
    if len(tasks) < 2:
        return None
    # Tasks are treated like the seeds of a cell, without further uncertainty.
    return cell({number: Run(value, 0.0, bounds=bounds) for number, value in enumerate(tasks.values())}).interval()
