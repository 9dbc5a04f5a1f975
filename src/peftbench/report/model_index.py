"""What a run found as metadata of a model card on the Hugging Face Hub (`model-index`)."""

from typing import Any

from peftbench.core.registry import UnknownNameError
from peftbench.core.spec import RunResult
from peftbench.models import address
from peftbench.tasks import TASKS, TaskFacts

KINDS = {
    "classification": "text-classification",
    "multiple-choice": "multiple-choice",
    "regression": "sentence-similarity",
    "qa": "question-answering",
    "summarization": "summarization",
}
"""Kinds of tasks as the Hub calls them; the others are `text-generation`."""


def model_index(result: RunResult) -> str | None:
    """The metadata as YAML, to stand between the lines `---` of a card; `None` for a run without a score.

    Scores are on our scale of 0 to 100. Data sets that are not of the Hub are named as the task.
    """
    from huggingface_hub import EvalResult, ModelCardData

    scores = {name: score.value for name, score in result.scores.items() if score.value is not None}
    if not scores:
        return None
    spec, data = result.spec, _data(result)
    # A card is of one run: it says which values a search gave, where tables say that there was one.
    given = spec.method.model_copy(update={"tuned": ()})
    results = [
        EvalResult(
            **data,
            metric_type=metric,
            metric_value=value,
            metric_name=metric,
            metric_args={"scale": [0, 100]},
        )
        for metric, value in scores.items()
    ]
    card = ModelCardData(
        base_model=address(spec.model.name),
        model_name=f"{spec.model_name} {given} {spec.task}",
        tags=["peftbench", spec.method.name],
        eval_results=results,
    )
    return f"{card.to_yaml()}\n"


def _data(result: RunResult) -> dict[str, Any]:
    """What was tested, as far as it is known without the data."""
    facts = _facts(result)
    spec, held = result.spec, result.data
    origin, _, name = held.source.partition(": ") if held else ("", "", "")
    on_hub = origin in ("hub", "mirror")
    return {
        "task_type": KINDS.get(facts.kind if facts else "", "text-generation"),
        "dataset_type": name if on_hub else str(spec.task),
        "dataset_name": str(spec.task),
        "dataset_config": facts.source.config if facts and on_hub else None,
        "dataset_split": facts.source.test if facts and on_hub else None,
        "dataset_revision": held.revision if held and on_hub and held.revision != "mirror" else None,
        "dataset_args": {"test_rows": held.test_rows, "train_rows": held.train_rows} if held else None,
    }


def _facts(result: RunResult) -> TaskFacts | None:
    try:
        return TASKS[result.spec.task.name].facts
    except UnknownNameError:  # of a plugin that is not here now
        return None
