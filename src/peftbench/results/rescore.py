"""Metrics of stored answers: in a store, or in a file."""

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError
from peftbench.core.spec import RunResult, Score
from peftbench.metrics import METRICS, Answers
from peftbench.results.store import Store, read_predictions
from peftbench.tasks import Task, resolve
from peftbench.tasks._scoring import TaskScores, answers_from, facts_of_answers, score_all


@dataclass(frozen=True)
class Rescored:
    """A metric of the stored answers of a run: the stored score (`None` if there is none), and the new one."""

    id: str
    metric: str
    stored: Score | None
    now: Score

    @property
    def same(self) -> bool:
        """Whether both have the same value; True if no score is stored."""
        if self.stored is None or self.stored.value is None or self.now.value is None:
            return self.stored is None or self.stored.value == self.now.value
        return math.isclose(self.stored.value, self.now.value, rel_tol=1e-9, abs_tol=1e-9)


def score_answers(
    metric: str,
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    labels: Sequence[str] = (),
    positive: str | None = None,
    scale: tuple[float, float] | None = None,
    details: Sequence[Mapping[str, Any]] = (),
) -> Score:
    """Return a metric of answers. Raises `UserError` for an unknown metric or lists of different lengths."""
    _known([metric])
    if isinstance(predictions, str) or isinstance(references, str):
        raise UserError("predictions and references must be lists with one entry per row")
    for name, given in (("references", references), ("details", details or predictions)):
        if len(given) != len(predictions):
            raise UserError(f"{len(predictions)} predictions, but {len(given)} {name}: the numbers must be equal")
    rows = [
        {"prediction": given, "references": right, "details": more}
        for given, right, more in zip(predictions, references, details or [{}] * len(predictions), strict=True)
    ]
    answers = _answers(rows, {"labels": labels, "positive": positive, "scale": scale}, "score")
    return score_all([metric], answers).scores[metric]


def score_file(path: Path, metrics: Sequence[str], facts: Mapping[str, Any]) -> dict[str, Score]:
    """Return the metrics of the answers in a JSON-lines file, which may be compressed (`.gz`).

    Each row has `prediction` and `references`, and `details` if a metric needs them. `facts` are `labels`, `positive`
    and `scale`, if there are any. Raises `UserError` for an unreadable file, an invalid row, or an unknown metric.
    """
    _known(metrics)
    rows, where = [], ""
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig").split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"line {number}: "
                rows.append(json.loads(line))
    except (OSError, EOFError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"answers {path}: {where}{why}") from error
    if not rows:
        raise UserError(f"answers {path}: the file has no rows")
    return score_all(metrics, _answers(rows, facts, f"answers {path}")).scores


def rescore(store: Store, ids: Sequence[str], metrics: Sequence[str] = (), save: bool = False) -> list[Rescored]:
    """Score the stored answers of runs again, by `metrics` or the metrics of each run; with `save`, update the results.

    Raises `UserError` for an unknown metric, an unknown run, or answers that cannot be scored.
    """
    _known(metrics)
    found, results = [], store.results()
    for id_ in ids:
        result, folder = store.find(id_, results)
        lines, scored = rescored(result, folder, metrics)
        found += lines
        if save and any(line.stored != line.now for line in lines):
            main = next(iter(result.scores), lines[0].metric)
            rows = {"row_scores": scored.row_scores} if lines[0].metric == main else {}
            store.rescore(result, folder, {"scores": {**result.scores, **scored.scores}, **rows})
    return found


def rescored(result: RunResult, folder: Path, metrics: Sequence[str] = ()) -> tuple[list[Rescored], TaskScores]:
    """Score the stored answers of one run by `metrics`, by default its own.

    Raises `UserError` for an unknown metric, or for answers that cannot be scored.
    """
    task = resolve(result.spec.task.name, result.spec.task.arguments)
    names = tuple(metrics) or tuple(result.scores) or task.facts.metrics
    scored = score_all(names, _kept(result, folder, task))
    return [Rescored(result.id, name, result.scores.get(name), scored.scores[name]) for name in names], scored


def _known(metrics: Sequence[str]) -> None:
    for name in metrics:
        METRICS[name]


def _kept(result: RunResult, folder: Path, task: Task) -> Answers:
    where = f"run {result.id}"
    try:
        rows = read_predictions(folder)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{where}: its answers cannot be read: {error}") from error
    if not rows:
        raise UserError(f"{where} ended as {result.status} and has no answers")
    # Older results do not contain the facts for scoring their answers.
    return _answers(rows, result.answers or facts_of_answers(task), where)


def _answers(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], where: str) -> Answers:
    try:
        return answers_from(rows, facts)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error
