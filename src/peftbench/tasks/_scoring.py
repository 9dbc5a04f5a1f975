"""Compute all metrics of a task from predictions."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from peftbench.core.registry import UserError, error_line
from peftbench.core.spec import Choice, Score
from peftbench.metrics import METRICS, Answers, Measured, UnavailableError, invalid_share, lacking_details, score_metric
from peftbench.tasks import Example, Source, Task, TaskFacts, resolve
from peftbench.tasks._loading import example_of, read_rows

TRIED = 200
"""Rows on which metrics are tested before training."""
LONGEST = 20_000
"""Maximum JSON length of the details stored with an answer; tests of programs may be far longer."""


class TaskScores(NamedTuple):
    """All metrics of a task, and the row scores of the main metric (`peftbench.metrics.Measured`) as text."""

    scores: dict[str, Score]
    invalid_share: float | None
    row_scores: str | None


NOTHING = TaskScores({}, None, None)
"""Scores of a run that was not evaluated."""


def score_task(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> TaskScores:
    """Compute all metrics of a task and the share of invalid answers; labels are case-insensitive."""
    return score_all(task.facts.metrics, answers_of(task, examples, predictions))


def score_all(metrics: Sequence[str], answers: Answers) -> TaskScores:
    """Compute all metrics, the main one first, and the share of invalid answers. Failed metrics have a reason only."""
    found = {name: _score(name, answers) for name in metrics}
    main = found[metrics[0]][1]
    rows = None if main is None else " ".join(f"{x:.6g}" for x in main.rows)
    return TaskScores({name: each for name, (each, _) in found.items()}, invalid_share(answers), rows)


def _score(name: str, answers: Answers) -> tuple[Score, Measured | None]:
    facts = METRICS[name].facts
    version, signature = facts.version, None
    if needed := lacking_details(name, answers, answers.details or [{}] * len(answers.predictions)):
        return Score(why=f"metric '{name}' needs {needed}", version=version), None
    try:
        measured = score_metric(name, answers)
        signature = facts.signature(answers) if facts.signature else None
    except UnavailableError as problem:
        return Score(why=str(problem), version=version), None
    except Exception as problem:
        return Score(why=f"metric '{name}' failed: {error_line(problem)}", version=version), None
    error = None if math.isnan(measured.standard_error) else measured.standard_error
    return Score(value=measured.value, standard_error=error, version=version, signature=signature), measured


def chance(task: Task, examples: Sequence[Example]) -> float | None:
    """Return the main-metric score of the best constant answer: one label, or one position among the choices. Return
    `None` for free text and numbers, and if the metric fails.
    """
    places = min((len(example.choices) for example in examples), default=0)
    constant = [[label] * len(examples) for label in task.facts.labels]
    if not constant:
        constant = [[example.choices[place] for example in examples] for place in range(places)]
    metric = METRICS[task.facts.metrics[0]]
    values = []
    for predictions in constant:
        try:
            found = metric.function(answers_of(task, examples, predictions))
            values.append(float(np.nanmean(found) if metric.facts.rowwise else found))
        except Exception:
            return None  # the score reports the same error
    return max(values, default=None)


def answers_of(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> Answers:
    """Return the input of metrics: stripped texts, case-folded if the task has labels."""
    facts = task.facts
    fold: Callable[[str], str] = str.casefold if facts.labels else str
    return Answers(
        predictions=[fold(text.strip()) for text in predictions],
        references=[tuple(fold(text.strip()) for text in example.answers) for example in examples],
        labels=[fold(label) for label in facts.labels],
        positive=fold(facts.positive) if facts.positive else None,
        scale=facts.scale,
        choices=[example.choices for example in examples],
        details=[example.details for example in examples],
    )


# ---- checks before training -----------------------------------------------------------------------------------------


def check_facts(task: Task, arguments: Mapping[str, Any]) -> None:
    """Raise `UserError` for a metric that cannot work, as far as known before rows are downloaded.

    Rows of files and of user-defined generators are available locally and are checked too.
    """
    source, ours = task.facts.source, task.function.__module__.startswith("peftbench.")
    if source.files or (source.generator and not ours):
        rows = read_rows(source, source.test or source.train, count=None if source.files else TRIED).rows
        examples = [example_of(task, row, **arguments) for row in rows[:TRIED]]
        return check_metrics(task, examples, light=True)
    for name in task.facts.metrics:
        _check_needs(task, name, None)
    return None


def check_metrics(task: Task, examples: Sequence[Example], light: bool = False) -> None:
    """Raise `UserError` for a metric that cannot score the correct answers of these rows.

    Metrics that run programs are not tested; with `light`, neither are metrics that are slow to import.
    """
    for name in task.facts.metrics:
        unit = METRICS[name]
        _check_needs(task, name, [one.details for one in examples])
        if unit.facts.refusal is not None or (light and not unit.facts.light):
            continue
        some = examples[:TRIED]
        try:
            score_metric(name, answers_of(task, some, [one.answers[0] for one in some]), resamples=2)
        except UnavailableError as problem:
            # Without its main metric, a run has no score.
            if name == task.facts.metrics[0]:
                raise _impossible(task, name, f"is not available: {problem}") from problem
        except Exception as problem:
            raise _impossible(task, name, f"fails on right answers: {error_line(problem)}") from problem


def refusals(tasks: Iterable[Choice]) -> list[str]:
    """Return one message per metric of these tasks that is not available on this machine."""
    found = {}
    for choice in tasks:
        for name in resolve(choice.name, choice.arguments).facts.metrics:
            refusal = METRICS[name].facts.refusal
            if refusal is not None and (str(choice), name) not in found and (why := refusal()):
                found[str(choice), name] = f"task '{choice}': its metric '{name}' will be missing: {why}"
    return list(found.values())


def _check_needs(task: Task, name: str, details: Sequence[Mapping[str, Any]] | None) -> None:
    if needed := lacking_details(name, task.facts, details):
        raise _impossible(task, name, f"needs {needed}")


def _impossible(task: Task, name: str, why: str) -> UserError:
    return UserError(f"task '{task.facts.title or task.name}': its metric '{name}' {why}")


# ---- stored answers -------------------------------------------------------------------------------------------------


def kept_answers(examples: Sequence[Example], predictions: Sequence[str]) -> list[dict[str, Any]]:
    """Return the prediction and references of each test row, to be stored and scored again later.

    Details that metrics need are included, unless they are longer than `LONGEST`.
    """
    wanted = {need for unit in METRICS for need in unit.facts.needs}
    rows = []
    for one, text in zip(examples, predictions, strict=True):
        row: dict[str, Any] = {"prediction": text, "references": list(one.answers)}
        found = {key: one.details[key] for key in sorted(wanted & one.details.keys())}
        if found and len(json.dumps(found, default=str)) <= LONGEST:
            row["details"] = found
        rows.append(row)
    return rows


def facts_of_answers(task: Task) -> dict[str, Any]:
    """Return the metadata used to score answers, as JSON types, without empty values."""
    facts = task.facts
    found = {"labels": list(facts.labels), "positive": facts.positive, "scale": list(facts.scale or ())}
    return {name: value for name, value in found.items() if value}


def answers_from(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Answers:
    """Return the input of metrics for stored answers and the metadata used to score them.

    A row has `prediction`, one or several `references`, and optional `details` and `choices`. Raises `ValueError` for
    an invalid row.
    """
    made = [_example(row, number) for number, row in enumerate(rows, 1)]
    scale = facts.get("scale")
    held = TaskFacts(
        source=Source(""),
        kind="qa",
        instruction="",
        metrics=(),
        max_new_tokens=1,
        labels=tuple(facts.get("labels", ())),
        positive=facts.get("positive"),
        scale=(float(scale[0]), float(scale[1])) if scale else None,
    )
    return answers_of(Task("task", "", _example, held), made, [row["prediction"] for row in rows])


def _example(row: Mapping[str, Any], number: int) -> Example:
    if not isinstance(row, Mapping):
        raise ValueError(f"row {number} is no object with 'prediction' and 'references'")
    given, right = row.get("prediction"), row.get("references", row.get("reference"))
    right = [right] if isinstance(right, str) else right
    if (
        not isinstance(given, str)
        or not isinstance(right, (list, tuple))
        or not right
        or not all(isinstance(x, str) for x in right)
    ):
        raise ValueError(f"row {number} needs a text as 'prediction' and one or more as 'references'")
    return Example({}, right[0], tuple(right), tuple(row.get("choices", ())), row.get("details", {}))
