"""No worse, worse, or cannot tell: a candidate against a baseline, over the same tasks, seeds and test rows.

A test of non-inferiority (Piaggio et al. 2012, doi:10.1001/jama.2012.87802): the candidate is no worse if the interval
of the paired difference lies above minus a margin that was set in advance. A gate must not pass every candidate because
its tasks are insensitive (ICH E10, assay sensitivity). A task therefore counts only if the baseline is above chance by
more than the margin: a candidate that learns nothing is then worse by more than the margin.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from peftbench.core.jsonable import to_json
from peftbench.stats.intervals import Estimate, Interval, Runs, cell, difference, over_tasks
from peftbench.studies._missing_cells import MissingCell

LEVEL = 0.95
MARGIN = 3.0
GateOutcome = Literal["no worse", "worse", "cannot tell"]
EXIT: dict[GateOutcome, int] = {"no worse": 0, "worse": 1, "cannot tell": 2}


@dataclass(frozen=True)
class Paired:
    """One task: the runs of both methods on the same seeds and test rows, in points of its main metric.

    `chance`: the score of the best constant answer; `None` for free answers, for which 0 is used.
    """

    task: str
    metric: str
    candidate: Runs
    baseline: Runs
    chance: float | None = None


@dataclass(frozen=True)
class TaskVerdict:
    """The verdict on one task. `difference` is candidate minus baseline. `worse`: the candidate is worse by more than
    the margin, corrected for the number of tasks. `counts`: whether the baseline is far enough above chance.
    """

    task: str
    metric: str
    candidate: float
    baseline: float
    chance: float | None
    difference: Interval
    counts: bool
    worse: bool


@dataclass(frozen=True)
class GateVerdict:
    """The outcome, the reason in one sentence, and the results that it is based on.

    `difference`: mean over the tasks that count; `None` if none does. `failed`: cells that the candidate lacks and
    the baseline has. `gaps`: cells that the baseline lacks. `names`: of candidate and baseline. `conditions`: of the
    comparison, such as the model and the number of seeds.
    """

    outcome: GateOutcome
    reason: str
    margin: float
    difference: Interval | None
    tasks: tuple[TaskVerdict, ...]
    failed: tuple[MissingCell, ...] = ()
    gaps: tuple[MissingCell, ...] = ()
    names: tuple[str, str] = ("candidate", "baseline")
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return EXIT[self.outcome]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; infinite degrees of freedom become `None`."""
        return {**to_json(self), "exit_code": self.exit_code}


def judge_candidate(
    tasks: Sequence[Paired],
    margin: float = MARGIN,
    failed: Iterable[MissingCell] = (),
    gaps: Iterable[MissingCell] = (),
) -> GateVerdict:
    """Return the verdict on a candidate by the rules of `docs/gate.md`.

    `tasks` are those on which both methods have every cell. Raises `ValueError` for a margin that is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin {margin:g}: it must be above 0 points")
    differences = {each.task: difference(each.candidate, each.baseline) for each in tasks}
    found = tuple(_look(each, differences[each.task], margin, len(tasks)) for each in tasks)
    counted = [differences[each.task] for each in found if each.counts]
    mean = over_tasks(counted).interval(LEVEL) if counted else None
    failed, gaps = tuple(failed), tuple(gaps)
    if failed:
        outcome, reason = _failure(failed)
    elif gaps:
        outcome, reason = _gap(gaps)
    else:
        outcome, reason = _weigh(found, mean, over_tasks(list(differences.values())).interval(LEVEL), margin)
    return GateVerdict(outcome, reason, margin, mean, found, failed, gaps)


def _look(task: Paired, found: Estimate, margin: float, tasks: int) -> TaskVerdict:
    baseline = cell(task.baseline).interval(LEVEL)
    # Bonferroni: the chance of a false "worse" on any task is at most that of a single interval.
    strict = found.interval(1 - (1 - LEVEL) / tasks)
    return TaskVerdict(
        task=task.task,
        metric=task.metric,
        candidate=cell(task.candidate).mean,
        baseline=baseline.mean,
        chance=task.chance,
        difference=found.interval(LEVEL),
        counts=baseline.low is not None and baseline.low - (task.chance or 0.0) > margin,
        worse=strict.high is not None and strict.high < -margin,
    )


def _failure(failed: Sequence[MissingCell]) -> tuple[GateOutcome, str]:
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return "worse", f"the candidate has no score where the baseline has one: {failed[0]}{more}"


def _gap(gaps: Sequence[MissingCell]) -> tuple[GateOutcome, str]:
    more = f", and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    return "cannot tell", f"the baseline has no score: {gaps[0]}{more}"


def _weigh(
    tasks: Sequence[TaskVerdict], mean: Interval | None, overall: Interval, margin: float
) -> tuple[GateOutcome, str]:
    collapsed = [task.task for task in tasks if task.worse]
    if collapsed:
        return "worse", f"worse by more than the margin of {margin:g} points on {', '.join(collapsed)}"
    if overall.low is not None and overall.low > 0:
        return "no worse", f"better over all tasks: {difference_text(overall)} points"
    if mean is None:
        return "cannot tell", f"the baseline is on no task above chance by more than the margin of {margin:g} points"
    if mean.low is None or mean.high is None:
        return "cannot tell", "the error over test rows is not known"
    if mean.low > -margin:
        return "no worse", f"{difference_text(mean)} points: above minus the margin of {margin:g}"
    if mean.high < 0:
        return "worse", f"{difference_text(mean)} points: below 0, and not within the margin of {margin:g}"
    between = f"neither above minus the margin of {margin:g} nor below 0"
    return "cannot tell", f"{difference_text(mean)} points: {between}; use more seeds or test rows"


def difference_text(interval: Interval) -> str:
    """Format a difference with its interval as `-1.2 (-2.4 to 0.0)`."""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.1f} (interval unknown)"
    return f"{interval.mean:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"
