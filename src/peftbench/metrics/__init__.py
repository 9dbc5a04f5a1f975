"""Metrics: pure functions from answers to a score.

A metric takes `Answers` and returns either one score of all rows, or a score of each row or group of rows
(`rowwise=True`), whose mean is the score of all; a row of which the score is not a number cannot be scored and does not
count. Scores are on a 0 to 100 scale. One file per metric or family.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peftbench.core.registry import Registry, Unit


class UnavailableError(Exception):
    """A metric that is not available here, for the reason that the message gives: the score is missing, not 0."""


@dataclass(frozen=True)
class Answers:
    """Answers and what they should have been, row by row.

    `references` has one or more right answers a row. `labels` is empty for free text; `positive` is the label that
    binary F1 looks for, `scale` the least and the greatest value of a number. `choices` has what each row has to choose
    from where that is its own (empty, or one sequence a row, which may be empty). `details` is what the task says of
    each row beside its answers (empty, or one mapping a row).
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    labels: Sequence[str] = ()
    positive: str | None = None
    scale: tuple[float, float] | None = None
    choices: Sequence[Sequence[str]] = ()
    details: Sequence[Mapping[str, Any]] = ()

    def take(self, rows: Sequence[int]) -> "Answers":
        """The chosen rows, in that order, repeats allowed."""
        return replace(
            self,
            predictions=[self.predictions[i] for i in rows],
            references=[self.references[i] for i in rows],
            choices=[self.choices[i] for i in rows] if self.choices else (),
            details=[self.details[i] for i in rows] if self.details else (),
        )


FACTS = ("labels", "positive", "scale")
"""What a metric may need that is a fact of the task; all else is a key of the rows' `details`."""


@dataclass(frozen=True)
class MetricFacts:
    """`rowwise`: the score is the mean of the scores of rows, or of groups of rows. `lower`, `upper`: its bounds.

    `needs` names what it cannot do without: one of `FACTS`, or a key of every row's `details`. `refusal` says why it
    is not available on this machine, if it cannot. `version` is raised by a change that gives the same answers another
    score. `signature` says what of the metric depends on the answers, such as the tokens that fit their script.
    `light`: it imports nothing that takes long, and can be tried when a grid is read.
    """

    rowwise: bool
    lower: float = 0.0
    upper: float = 100.0
    paper: str = field(default="", kw_only=True)
    needs: tuple[str, ...] = field(default=(), kw_only=True)
    refusal: Callable[[], str | None] | None = field(default=None, kw_only=True)
    version: int | str = field(default=1, kw_only=True)
    light: bool = field(default=True, kw_only=True)
    signature: "Callable[[Answers], str] | None" = field(default=None, kw_only=True)


METRICS: Registry[MetricFacts] = Registry("metric", "peftbench.metrics")
Metric = Unit[MetricFacts]


def metric(*, rowwise: bool = False, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a metric under its function's name; the keywords are those of `MetricFacts`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        METRICS.add(function, MetricFacts(rowwise, **facts))
        return function

    return register


def bounds(name: object) -> tuple[float, float]:
    """The least and the greatest score of a metric; infinite for one that is not registered here."""
    if not isinstance(name, str) or name not in METRICS:
        return -np.inf, np.inf
    return METRICS[name].facts.lower, METRICS[name].facts.upper


def lacking_details(name: str, facts: Any, details: Sequence[Mapping[str, Any]] | None) -> str | None:
    """What a metric needs and has not got, in words; `None` if that is nothing.

    `facts` has the attributes that are named in `FACTS`, as a task's or `Answers`; `details` of rows, `None` if they
    are not known yet.
    """
    for need in METRICS[name].facts.needs:
        if need in FACTS:
            held = getattr(facts, need)
            if need == "positive" and held:
                known = [label.casefold() for label in facts.labels]
                if held.casefold() not in known:
                    return f"its positive label '{held}' is not one of the labels {', '.join(facts.labels)}"
            if not held:
                return {"positive": "a positive label", "labels": "labels"}.get(need, f"a {need}") + " of the task"
        elif details is not None:
            for number, row in enumerate(details, 1):
                if row.get(need) in (None, ""):
                    return f"details['{need}'] of every row, which row {number} has not"
    return None


def parsed_number(text: str, scale: tuple[float, float]) -> float | None:
    """The number that a text is; `None` if it is none or lies outside the scale."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if scale[0] <= value <= scale[1] else None


def invalid_share(answers: Answers) -> float | None:
    """The share of answers that are no number of the scale, or none of their row's choices, or of the labels.

    Case and outer white space do not count. None where answers are free.
    """
    if answers.scale is not None:
        outside = [parsed_number(text, answers.scale) is None for text in answers.predictions]
    elif answers.labels or any(answers.choices):
        rows = zip(answers.predictions, answers.choices or [()] * len(answers.predictions), strict=True)
        known = _folded(answers.labels)
        outside = [text.strip().casefold() not in (_folded(choices) if choices else known) for text, choices in rows]
    else:
        return None
    return sum(outside) / len(outside)


def _folded(texts: Sequence[str]) -> set[str]:
    return {text.strip().casefold() for text in texts}


class Measured(NamedTuple):
    """A metric of all rows, its standard error over them, and the numbers [row] that this is the standard error of.

    These are the scores of rows (NaN: cannot be scored) or groups, or for a metric that is no mean of them one number a
    resample, made so that their mean is the score and the standard error of their mean its standard error. Two systems
    that answer the same rows have numbers that belong together one by one: their difference has the mean of the
    differences, and its standard error.
    """

    value: float
    standard_error: float
    rows: npt.NDArray[np.float64]


def score_metric(name: str, answers: Answers, resamples: int = 200, seed: int = 0) -> Measured:
    """A metric with its standard error: exact for a mean of rows, else by bootstrap, which draws equal rows for all.

    Rows of one group (`details["group"]`) are drawn together. The error is NaN, not known, of fewer than two rows or
    groups that can be scored. Raises `ValueError` for no rows and `UnavailableError` if the metric is not available.
    """
    if not answers.predictions:
        raise ValueError(f"metric '{name}' of no rows")
    unit = METRICS[name]
    if unit.facts.rowwise:
        rows = np.asarray(unit.function(answers), dtype=float)
        values = rows[~np.isnan(rows)]
        if not len(values):
            raise UnavailableError("there is no row that it can score")
        if not np.isfinite(values).all():
            raise UnavailableError("what it gives is not a number")
        error = values.std() / np.sqrt(len(values) - 1) if len(values) > 1 else np.nan
        return Measured(float(values.mean()), float(error), rows)
    rng, groups = np.random.default_rng(seed), grouped_rows(answers)
    choices = [rng.integers(len(groups), size=len(groups)).tolist() for _ in range(resamples)]
    value = float(unit.function(answers))
    if not np.isfinite(value):
        raise UnavailableError("what it gives is not a number")
    drawn = np.array([_of_rows(unit, answers, [row for i in chosen for row in groups[i]]) for chosen in choices])
    error = np.nanstd(drawn, ddof=1) if len(groups) > 1 else np.nan
    return Measured(value, float(error), value + np.sqrt(resamples) * (drawn - np.nanmean(drawn)))


def _of_rows(unit: Metric, answers: Answers, rows: Sequence[int]) -> float:
    """A metric of some rows; not a number, if among them is none that it can score."""
    try:
        return float(unit.function(answers.take(rows)))
    except UnavailableError:
        return np.nan


def grouped_rows(answers: Answers) -> list[list[int]]:
    """The numbers of the rows of each group, in order of its first row; a row without a group is one of its own."""
    groups: dict[Any, list[int]] = {}
    for row in range(len(answers.predictions)):
        own = answers.details[row].get("group") if answers.details else None
        groups.setdefault((row, None) if own is None else (None, own), []).append(row)
    return list(groups.values())
