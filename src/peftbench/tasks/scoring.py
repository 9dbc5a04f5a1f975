"""From answers to scores: every metric of a task."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from peftbench.metrics import METRICS, Answers, UnavailableError, invalid_share, score
from peftbench.spec import Score
from peftbench.tasks import Example, Task


class Scored(NamedTuple):
    """Every metric of a task, and the scores of rows in the main one (`peftbench.metrics.Measured`), as in a result."""

    scores: dict[str, Score]
    invalid_share: float | None
    row_scores: str | None


NOTHING = Scored({}, None, None)
"""Of a run that was not scored."""


def scored(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> Scored:
    """Every metric of the task, and the share of invalid answers; labels are compared without regard to case."""
    answers = answers_of(task, examples, predictions)
    found, rows = {}, {}
    for name in task.facts.metrics:
        try:
            value, error, rows[name] = score(name, answers)
            found[name] = Score(value=value, standard_error=None if math.isnan(error) else error)
        except UnavailableError as problem:
            found[name] = Score(why=str(problem))
    main = rows.get(task.facts.metrics[0])
    return Scored(found, invalid_share(answers), None if main is None else " ".join(f"{x:.6g}" for x in main))


def chance(task: Task, examples: Sequence[Example]) -> float | None:
    """What can be scored in the main metric without a look at the question: by the best of the answers that are the
    same for every row, a label or a place among the choices. `None` where text or numbers are free.
    """
    places = min((len(example.choices) for example in examples), default=0)
    constant = [[label] * len(examples) for label in task.facts.labels]
    if not constant:
        constant = [[example.choices[place] for example in examples] for place in range(places)]
    metric = METRICS[task.facts.metrics[0]]
    values = []
    for predictions in constant:
        found = metric.function(answers_of(task, examples, predictions))
        values.append(float(np.nanmean(found) if metric.facts.rowwise else found))
    return max(values, default=None)


def answers_of(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> Answers:
    """Answers as metrics take them; where there are labels, case is folded."""
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
