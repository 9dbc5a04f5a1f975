"""How good advice is: what is lost on a task that the advisor has not seen, beside simpler rules and the best of all.

Each task is left out in turn, with all its cells; every rule picks one of the methods that were scored in a cell, by
the cells of the other tasks alone. Methods that no other task has are left aside. A rule's regret is the points by
which the score of what it picks is below that of the oracle.

The oracle takes the highest mean score over the seeds of the cell itself. Among several methods the highest is one that
was lucky (the winner's curse), so every regret holds some points that nobody could have had. How many, the rule "best
of the other seeds" says: it knows the task, and picks by the other seeds what one seed then scores.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from peftbench.advisor.evidence_similarity import EvidenceCell, Place
from peftbench.advisor.recommend import known_methods
from peftbench.advisor.score_model import NORMAL, ScoreModel, learn
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
    """A rule: its mean regret in points over tasks, and by how much more it loses than the advisor on the same ones."""

    name: str
    regret: Interval | None
    over_advisor: Interval | None
    tasks: int


@dataclass(frozen=True)
class RegretReport:
    """Rules by regret; per cell what each picked and lost; `covered`: which share of the scores of the left-out tasks,
    less their cells' means, lay in the 95 % interval that was expected of them.
    """

    policies: tuple[Policy, ...]
    picks: tuple[Mapping[str, object], ...]
    covered: float | None
    cells: int


def leave_one_task_out(cells: Sequence[EvidenceCell]) -> RegretReport | str:
    """Leave-one-task-out regret, or why there is none. Pure, and the order of the cells does not matter."""
    usable = sorted((c for c in cells if len(c.scores) > 1), key=lambda c: str(c.place))
    tasks = sorted({c.place.task for c in usable})
    if len(tasks) < 3:
        return f"leaving a task out takes three tasks with two methods each, and there are {len(tasks)}"
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
    """A cell with those of its methods that the other tasks know: nobody could have picked another."""
    known = {label for label, one in model.advantages.series.items() if len(one.values)}
    return replace(here, scores={label: one for label, one in here.scores.items() if label in known})


def _lost(model: ScoreModel, here: EvidenceCell) -> dict[str, float]:
    """What each rule loses in a cell, in points."""
    best = max(one.score for one in here.scores.values())
    found = {rule: best - here.scores[label].score for rule, label in _picks(model, here).items()}
    return found | {RANDOM: best - fmean(s.score for s in here.scores.values()), ORACLE: 0.0} | _by_seeds(here)


def _told(place: Place) -> dict[str, object]:
    return {"task": place.task, "model": place.model, "size": place.size}


def _picks(model: ScoreModel, here: EvidenceCell) -> dict[str, str]:
    """The method that each rule takes of those in a cell."""
    order = [label for label in known_methods(model, here.place) if label in here.scores]
    found = {ADVISOR: order[0], OVERALL: _overall(model, order)}
    lora = [label for label in order if here.scores[label].method == "lora"]
    # Of several LoRAs the plain one; without it, the best on the other tasks.
    return found | ({ALWAYS: "lora" if "lora" in lora else _overall(model, lora)} if lora else {})


def _overall(model: ScoreModel, labels: Sequence[str]) -> str:
    """The method of the highest mean over the cells of the others, each cell taken less its level."""
    return max(labels, key=lambda label: (_mean(model, label), label))


def _mean(model: ScoreModel, label: str) -> float:
    return float(model.advantages.series[label].values.mean())


def _inside(model: ScoreModel, here: EvidenceCell) -> Iterable[bool]:
    """Whether each method's score, less the mean of the cell, lies in its interval; its own error widens that."""
    expected = model.advantage(here.place)
    means = fmean(s.score for s in here.scores.values()), fmean(expected[m].mean for m in here.scores)
    return [
        abs(here.scores[m].score - means[0] - expected[m].mean + means[1])
        <= NORMAL * math.sqrt(expected[m].sd ** 2 + here.scores[m].variance)
        for m in here.scores
    ]


def _by_seeds(here: EvidenceCell) -> dict[str, float]:
    """What is lost by picking on all seeds but one, judged on that one, against the oracle's pick there."""
    held = {label: one.by_seed for label, one in here.scores.items()}
    shared = sorted(set.intersection(*(set(scores) for scores in held.values())))
    if len(shared) < 2:
        return {}

    def best(seeds: Sequence[int]) -> str:
        return max(held, key=lambda label: (fmean(held[label][s] for s in seeds), label))

    oracle = best(shared)
    return {SEEDS: fmean(held[oracle][s] - held[best([o for o in shared if o != s])][s] for s in shared)}


def _policy(name: str, lost: Mapping[str, Sequence[tuple[float, float]]]) -> Policy:
    """Tasks are what is drawn: a task's regret is the mean of its cells', and the interval is over tasks."""
    own = {task: fmean(points for points, _ in cells) for task, cells in lost.items()}
    more = {task: fmean(points - advisor for points, advisor in cells) for task, cells in lost.items()}
    # No pick is better than the best; one that is judged on other seeds may be.
    bounds = UNBOUNDED if name == SEEDS else (0.0, math.inf)
    return Policy(name, _over(own, bounds), _over(more), len(lost))


def _over(tasks: Mapping[str, float], bounds: Bounds = UNBOUNDED) -> Interval | None:
    if len(tasks) < 2:
        return None
    # As the seeds of a cell, with nothing else that is uncertain.
    return cell({number: Run(value, 0.0, bounds=bounds) for number, value in enumerate(tasks.values())}).interval()
