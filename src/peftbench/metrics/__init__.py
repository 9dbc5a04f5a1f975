"""Metrics: pure functions from answers to a score.

A metric takes `Answers` and returns either one score for all rows, or one score for each row or group of rows
(`rowwise=True`), whose mean is the overall score. NaN marks a row that cannot be scored; it does not count. Scores are
on a scale from 0 to 100. There is one file per metric or family.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peftbench.core.registry import Registry, Unit


class UnavailableError(Exception):
    """The metric is not available, for the reason in the message: the score is missing, not 0."""


@dataclass(frozen=True)
class Answers:
    """Predictions and references, by row.

    `references` has one or more correct answers per row. `labels` is empty for free text; `positive` is the positive
    label of binary F1, `scale` the minimum and maximum of a number. `choices` has row-specific answer choices (empty,
    or one sequence per row, which may be empty). `details` has further facts from the task (empty, or a mapping a row).
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    labels: Sequence[str] = ()
    positive: str | None = None
    scale: tuple[float, float] | None = None
    choices: Sequence[Sequence[str]] = ()
    details: Sequence[Mapping[str, Any]] = ()

    def take(self, rows: Sequence[int]) -> "Answers":
        """Return the chosen rows, in that order, repeats allowed."""
        return replace(
            self,
            predictions=[self.predictions[i] for i in rows],
            references=[self.references[i] for i in rows],
            choices=[self.choices[i] for i in rows] if self.choices else (),
            details=[self.details[i] for i in rows] if self.details else (),
        )


FACTS = ("labels", "positive", "scale")
"""Values of `needs` that are facts of the task; all others are keys of the rows' `details`."""


@dataclass(frozen=True)
class MetricFacts:
    """`rowwise`: the score is the mean of the scores of rows or groups of rows. `lower`, `upper`: bounds of the score.

    `needs`: required inputs, each one of `FACTS` or a key of every row's `details`. `refusal` returns why the metric is
    not available on this machine, or `None`. `version` is increased when the same answers get a different score.
    `signature` describes settings that depend on the answers, such as the tokenizer for their script. `light`: its
    imports are fast, so it can be tried when a grid is read.
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
    """Register a metric under its function's name; the keywords are the fields of `MetricFacts`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        METRICS.add(function, MetricFacts(rowwise, **facts))
        return function

    return register


def bounds(name: object) -> tuple[float, float]:
    """Return the minimum and maximum score of a metric; infinite if it is not registered."""
    if not isinstance(name, str) or name not in METRICS:
        return -np.inf, np.inf
    return METRICS[name].facts.lower, METRICS[name].facts.upper


def lacking_details(name: str, facts: Any, details: Sequence[Mapping[str, Any]] | None) -> str | None:
    """Describe the first required input that a metric lacks; `None` if it lacks nothing.

    `facts` has the attributes named in `FACTS`: the facts of a task, or `Answers`. `details`: those of the rows, or
    `None` if not known yet.
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
    """Parse a number; `None` if the text is not a number or is outside the scale."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if scale[0] <= value <= scale[1] else None


def invalid_share(answers: Answers) -> float | None:
    """Return the share of answers that are not a number on the scale, one of the row's choices, or one of the labels.

    Case and surrounding white space are ignored. `None` if answers are free text.
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
    """A metric over all rows, its standard error, and `rows`: the numbers whose mean has that standard error.

    `rows` contains the scores of rows (NaN: cannot be scored) or groups, or, for a metric that is not a mean of row
    scores, one number per resample, scaled so that their mean and its standard error are those of the score. For two
    systems on the same rows the numbers are paired: their differences give the score difference and its standard error.
    """

    value: float
    standard_error: float
    rows: npt.NDArray[np.float64]


def score_metric(name: str, answers: Answers, resamples: int = 200, seed: int = 0) -> Measured:
    """Compute a metric and its standard error: analytically for a mean of rows, else by bootstrap.

    The bootstrap draws the same rows for all systems, and rows of one group (`details["group"]`) together. The error is
    NaN with fewer than two scored rows or groups. Raises `ValueError` for no rows and `UnavailableError` if the metric
    is not available.
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
    """Compute a metric of some rows; NaN if none of them can be scored."""
    try:
        return float(unit.function(answers.take(rows)))
    except UnavailableError:
        return np.nan


def grouped_rows(answers: Answers) -> list[list[int]]:
    """Return the row indices of each group, ordered by first row; a row without a group is a separate group."""
    groups: dict[Any, list[int]] = {}
    for row in range(len(answers.predictions)):
        own = answers.details[row].get("group") if answers.details else None
        groups.setdefault((row, None) if own is None else (None, own), []).append(row)
    return list(groups.values())
