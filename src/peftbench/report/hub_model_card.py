"""Results of a run as metadata of a model card on the Hugging Face Hub (`model-index`)."""

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
"""Task types of the Hub by kind of task; other kinds are `text-generation`."""


def model_index(result: RunResult) -> str | None:
    """Return the metadata as YAML, for the block between `---` lines of a card; `None` for a run without a score.

    Scores are on the scale of 0 to 100. Datasets that are not from the Hub are named after the task.
    """
    from huggingface_hub import EvalResult, ModelCardData

    scores = {name: score.value for name, score in result.scores.items() if score.value is not None}
    if not scores:
        return None
    spec, data = result.spec, _data(result)
    # A card describes one run, so it gives the values that a search chose; tables only say that there was a search.
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
    """Return the facts of the test data that are known without loading it."""
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
    except UnknownNameError:  # a task of a plugin that is not installed
        return None
