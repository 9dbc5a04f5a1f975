"""Metrics: pure functions from answers to a score.

A metric takes `Answers` and returns either one score of all rows, or a score of each row (`rowwise=True`), whose mean
is the score of all; a row of which the score is not a number cannot be scored and does not count. Scores are on a 0 to
100 scale. One file per metric or family.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from peftbench.registry import Registry, Unit


class UnavailableError(Exception):
    """A metric that cannot be had here, for the reason that the message gives: the score is missing, not 0."""


@dataclass(frozen=True)
class Answers:
    """Answers and what they should have been, row by row.

    `references` has one or more right answers a row. `labels` is empty for free text; `positive` is the label that
    binary F1 looks for, `scale` the least and the greatest value of a number. `details` is what the task says of each
    row beside its answers (empty, or one mapping a row).
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    labels: Sequence[str] = ()
    positive: str | None = None
    scale: tuple[float, float] | None = None
    details: Sequence[Mapping[str, Any]] = ()

    def take(self, rows: Sequence[int]) -> "Answers":
        """The chosen rows, in that order, repeats allowed."""
        return replace(
            self,
            predictions=[self.predictions[i] for i in rows],
            references=[self.references[i] for i in rows],
            details=[self.details[i] for i in rows] if self.details else (),
        )


@dataclass(frozen=True)
class MetricFacts:
    """`rowwise`: the score is the mean of row scores. `lower`, `upper`: its bounds."""

    rowwise: bool
    lower: float = 0.0
    upper: float = 100.0
    paper: str = field(default="", kw_only=True)


METRICS: Registry[MetricFacts] = Registry("metric", "peftbench.metrics")
Metric = Unit[MetricFacts]


def metric(
    *, rowwise: bool = False, lower: float = 0.0, upper: float = 100.0, paper: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a metric under its function's name."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        METRICS.add(function, MetricFacts(rowwise, lower, upper, paper=paper))
        return function

    return register


def score(name: str, answers: Answers, resamples: int = 200, seed: int = 0) -> tuple[float, float]:
    """A metric and its standard error over rows: exact for a mean of rows, else by bootstrap.

    Raises `ValueError` for no rows, `UnavailableError` if the metric cannot be had.
    """
    if not answers.predictions:
        raise ValueError(f"metric '{name}' of no rows")
    unit = METRICS[name]
    rows = len(answers.predictions)
    if unit.facts.rowwise:
        values = np.asarray(unit.function(answers), dtype=float)
        values = values[~np.isnan(values)]
        if not len(values):
            raise UnavailableError("there is no row that it can score")
        return float(values.mean()), float(values.std() / np.sqrt(max(len(values) - 1, 1)))
    rng = np.random.default_rng(seed)
    drawn = [unit.function(answers.take(rng.integers(rows, size=rows).tolist())) for _ in range(resamples)]
    return float(unit.function(answers)), float(np.std(drawn, ddof=1))
