"""Prediction of a method's score at a place from the cells in which it was run.

    score = level of the cell + advantage of the method there
    advantage = everywhere + near in model and size + kind of task + task + this cell

Hard and easy tasks can be pooled because a cell's level is subtracted first. Each part of a method's advantage is
normal around 0 with a variance that all methods share, and its covariance between two places is given by a kernel
(`peftbench.advisor.evidence_similarity.kernels`): a method with no run on this kind of task is expected to do as it
does everywhere, one with little evidence as the mean of the methods does. For given variances this is the best linear
unbiased prediction (Henderson 1975). The variances maximise the posterior density (empirical Bayes) with a weak prior,
which matters if there are few cells. Levels are predicted in the same way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from peftbench.advisor.evidence_similarity import EvidenceCell, Place, kernels

Array = "np.ndarray[Any, Any]"
PARTS = ("everywhere", "near", "kind", "task", "cell")
ADVANTAGES = (5.0, 1.0, 1.0, 3.0, 3.0)
LEVELS = (40.0, 10.0, 15.0, 15.0, 5.0)
"""Centre of the prior of each part's standard deviation in points, for advantages and for levels.

The centres for `near` and `kind` are small, so that such an effect needs evidence from several tasks. Otherwise two
tasks of one kind on which nothing was learned would determine the prediction for a third.
"""
SPREAD = 1.0
"""Standard deviation of that prior on the scale of the logarithm: a factor of 2.7 in both directions."""
MIDDLE = 50.0
"""Prior mean of the levels."""
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Possible factors between the variances of one method's parts and the shared ones."""
NORMAL = 1.959964
UNTOLD = 1.0
"""Minimum variance of a mean score, used if its error is unknown."""


@dataclass(frozen=True)
class Guess:
    """A predicted number and its standard deviation."""

    mean: float
    sd: float

    @property
    def half(self) -> float:
        """Half-width of the 95 % interval."""
        return NORMAL * self.sd


@dataclass(frozen=True)
class Series:
    """Observations of one series: its values at some of the places, and the error variance of each."""

    places: tuple[int, ...]
    values: Any
    errors: Any


@dataclass(frozen=True)
class GaussianProcess:
    """Gaussian processes over places, one per series, with shared variances of the parts."""

    places: tuple[Place, ...]
    series: Mapping[str, Series]
    centres: tuple[float, ...]

    @cached_property
    def shared(self) -> Any:
        """The kernel matrices of the parts, of shape (parts, places, places)."""
        return np.array(kernels(self.places, self.places))

    @cached_property
    def variances(self) -> Any:
        """The variance of each part, by maximum posterior density."""
        from scipy.optimize import minimize

        start = 2 * np.log(np.array(self.centres))
        found = minimize(self._loss, start, args=(start,), jac=True, method="L-BFGS-B", bounds=[(-6.0, 10.0)] * 5)
        return np.exp(found.x)

    def _loss(self, logs: Any, centre: Any) -> tuple[float, Any]:
        """Return the negative logarithm of the posterior density, and its gradient."""
        variances = np.exp(logs)
        away = (logs - centre) / (2 * SPREAD) ** 2
        loss, slope = float(away @ (logs - centre)) / 2, away.copy()
        for one in self.series.values():
            parts = self.shared[np.ix_(range(len(logs)), one.places, one.places)]
            precision, determinant = _inverse(np.tensordot(variances, parts, 1) + np.diag(one.errors))
            told = precision @ one.values
            loss += (determinant + float(one.values @ told)) / 2
            slope += variances * np.tensordot(parts, precision - np.outer(told, told), 2) / 2
        return loss, slope

    @cached_property
    def own(self) -> dict[str, Any]:
        """The variances of the parts for each series: some vary more with kind and task than others.

        Each series has the factor with the highest posterior density among `FACTORS`, with a prior as wide as that of
        the parts.
        """
        found = {}
        for name, one in self.series.items():
            parts = self.shared[np.ix_(range(len(PARTS)), one.places, one.places)]
            losses = []
            for factor in FACTORS:
                variances = self.variances * np.array([1.0, 1.0, factor, factor, factor])
                precision, determinant = _inverse(np.tensordot(variances, parts, 1) + np.diag(one.errors))
                prior = math.log(factor) ** 2 / (2 * SPREAD) ** 2
                losses.append((determinant + float(one.values @ precision @ one.values) + prior, factor))
            factor = min(losses)[1]
            found[name] = self.variances * np.array([1.0, 1.0, factor, factor, factor])
        return found

    def at(self, place: Place) -> dict[str, Guess]:
        """Predict each series at a place."""
        near = np.array(kernels([place], self.places))[:, 0]
        found = {}
        for name, one in self.series.items():
            variances, here = self.own[name], list(one.places)
            parts = self.shared[np.ix_(range(len(PARTS)), here, here)]
            precision, _ = _inverse(np.tensordot(variances, parts, 1) + np.diag(one.errors))
            shared = np.tensordot(variances, near[:, here], 1)
            weights = precision @ shared
            left = float(variances.sum() - weights @ shared)
            found[name] = Guess(float(weights @ one.values), math.sqrt(max(left, 0.0)))
        return found


def _inverse(matrix: Any) -> tuple[Any, float]:
    """Return the inverse of a positive definite matrix, and the logarithm of its determinant."""
    return np.linalg.inv(matrix), float(np.linalg.slogdet(matrix)[1])


@dataclass(frozen=True)
class ScoreModel:
    """The fitted model of some cells: levels of the cells, and advantages of the methods."""

    cells: tuple[EvidenceCell, ...]
    levels: GaussianProcess
    advantages: GaussianProcess

    def level(self, place: Place) -> Guess:
        """Predict the level of a place: the score of an average method."""
        found = self.levels.at(place)["level"]
        return Guess(MIDDLE + found.mean, found.sd)

    def advantage(self, place: Place) -> dict[str, Guess]:
        """Predict each method's advantage over the level of a place."""
        return self.advantages.at(place)


def learn(cells: Sequence[EvidenceCell]) -> ScoreModel:
    """Fit the model to cells, independent of their order. Raises `ValueError` if no cell has a score."""
    if not cells:
        raise ValueError("no cell has a score")
    kept = tuple(sorted(cells, key=lambda cell: cell.place.cell))
    levels = _levels(kept)
    places = tuple(cell.place for cell in kept)
    errors = [max(UNTOLD, sum(s.variance for s in cell.scores.values()) / len(cell.scores) ** 2) for cell in kept]
    level = Series(tuple(range(len(kept))), levels - MIDDLE, np.array(errors))
    # A cell with a single method gives information about the cell's level, not about the method.
    several = [number for number, cell in enumerate(kept) if len(cell.scores) > 1]
    series = {}
    for label in sorted({label for cell in kept for label in cell.scores}):
        held = [number for number in several if label in kept[number].scores]
        scores = [kept[number].scores[label] for number in held]
        values = np.array([s.score - levels[number] for s, number in zip(scores, held, strict=True)])
        series[label] = Series(tuple(held), values, np.array([max(UNTOLD, s.variance) for s in scores]))
    return ScoreModel(
        kept, GaussianProcess(places, {"level": level}, LEVELS), GaussianProcess(places, series, ADVANTAGES)
    )


def _levels(cells: Sequence[EvidenceCell]) -> Any:
    """Return the level of each cell, by least squares of scores on cells and methods.

    Thus a cell is not considered easy because only good methods were run in it. Variants of a method are treated as
    one, which connects the cells of different sources.
    """
    names = sorted({one.method for cell in cells for one in cell.scores.values()})
    rows, scores = [], []
    for number, cell in enumerate(cells):
        for one in cell.scores.values():
            row = np.zeros(len(cells) + len(names))
            row[number] = row[len(cells) + names.index(one.method)] = 1.0
            rows.append(row)
            scores.append(one.score)
    # If cells and methods form disconnected groups, the solution with the smallest method effects is used.
    hold = np.diag([0.0] * len(cells) + [0.05] * len(names))[len(cells) :]
    found = np.linalg.lstsq(np.vstack([*rows, hold]), np.array(scores + [0.0] * len(names)), rcond=None)[0]
    return found[: len(cells)]
