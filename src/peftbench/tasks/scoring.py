"""From answers to scores: every metric of a task."""

from collections.abc import Callable, Sequence

from peftbench.metrics import Answers, UnavailableError, invalid_share, score
from peftbench.spec import Score
from peftbench.tasks import Example, Task


def scored(
    task: Task, examples: Sequence[Example], predictions: Sequence[str]
) -> tuple[dict[str, Score], float | None]:
    """Every metric of the task, and the share of invalid answers; labels are compared without regard to case."""
    facts = task.facts
    fold: Callable[[str], str] = str.casefold if facts.labels else str
    answers = Answers(
        predictions=[fold(text.strip()) for text in predictions],
        references=[tuple(fold(text.strip()) for text in example.answers) for example in examples],
        labels=[fold(label) for label in facts.labels],
        positive=fold(facts.positive) if facts.positive else None,
        scale=facts.scale,
        choices=[example.choices for example in examples],
        details=[example.details for example in examples],
    )
    found = {}
    for name in facts.metrics:
        try:
            value, error = score(name, answers)
            found[name] = Score(value=value, standard_error=error)
        except UnavailableError as problem:
            found[name] = Score(why=str(problem))
    return found, invalid_share(answers)
