"""Conversion of a result to a row of the table of runs."""

import json
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.core.spec import Latency, RunResult, RunSpec, Score
from peftbench.results.schema import LATENCIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AS_FOUND = "status chance invalid_share validation_loss learning_rate best_step steps base_reloaded".split()
"""Columns that are copied from fields of a result."""


def table_row(result: RunResult, folder: Path) -> dict[str, Any]:
    """Return a result as a row of the table: values by column."""
    spec, scores = result.spec, result.scores
    main, score = next(iter(scores.items()), (None, Score()))
    return {
        "id": result.id,
        "machine_class": folder.parents[3].name,
        "model": spec.model_name,
        "model_source": spec.model.name,
        "model_version": str(spec.model.version),
        "method": spec.method.called or spec.method.name,
        "method_version": str(spec.method.version),
        "method_arguments": arguments_text(spec.method.shown),
        "task": spec.task.called or spec.task.name,
        "task_version": str(spec.task.version),
        "fingerprint": result.data.fingerprint if result.data else None,
        "evaluation": arguments_text(
            spec.eval.model_dump(mode="json", exclude_defaults=True, exclude={"retention_text"})
        ),
        "task_arguments": arguments_text(spec.task.asked),
        "size": spec.size,
        "seed": spec.seed,
        **_searched(spec),
        "training": arguments_text(spec.train.model_dump(mode="json", exclude_defaults=True)),
        **{name: getattr(result, name) for name in AS_FOUND},
        "metric": main,
        "metric_version": str(score.version) if main else None,
        "score": score.value,
        "score_error": score.standard_error,
        "row_scores": None if result.row_scores is None else row_scores(result.row_scores),
        "scores": json.dumps({name: each.value for name, each in scores.items()}),
        "merged_score": result.merged.scores[main].value if result.merged and main else None,
        "merged_logit_difference": result.merged.max_logit_difference if result.merged else None,
        **_made(result),
        "data": f"{result.data.source} {result.data.revision or ''}".strip() if result.data else None,
        "truncated_share": result.data.truncated_share if result.data else None,
        "data_remarks": json.dumps(result.data.remarks) if result.data else None,
        "notes": "; ".join(result.notes),
        "error": result.error or score.why,
        **result.costs.model_dump(),
        **_latencies(result),
    }


def row_scores(text: str) -> "NDArray[np.float64]":
    """Parse the `row_scores` of a result: one score per test row."""
    import numpy as np

    return np.array(text.split(), dtype=float)


def _made(result: RunResult) -> dict[str, Any]:
    """Return the conditions of a run: batch settings, numbers of rows, precision, number of parallel workers."""
    train, counts = result.spec.train, ("train_rows", "validation_rows", "test_rows", "truncated_rows")
    return {
        "epochs": None if train.max_steps > 0 else train.num_train_epochs,
        "batch_size": train.per_device_train_batch_size,
        "accumulation": train.gradient_accumulation_steps,
        **{name: getattr(result.data, name, None) for name in counts},
        "precision": result.base.get("precision"),
        "workers": result.settings.get("workers"),
    }


def _searched(spec: RunSpec) -> dict[str, Any]:
    """Return the number and the search of a trial, and the method arguments set by the search."""
    given = {name: spec.method.arguments.get(name, "default") for name in spec.method.tuned}
    number, search = (None, "") if spec.trial is None else (spec.trial.number, spec.trial.search)
    return {"trial": number, "search": search, "tuned": arguments_text(given)}


def _latencies(result: RunResult) -> dict[str, float | None]:
    measured = zip_longest(LATENCIES, result.latency)
    found = {"latency_ms": result.latency[0].median_ms if result.latency else None}
    return found | {f"{at}_{name}": getattr(each, name, None) for at, each in measured for name in Latency.model_fields}


def arguments_text(arguments: dict[str, Any]) -> str:
    """Format arguments for a column of the table: names and JSON values, sorted by name."""
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(arguments.items()))


def arguments(text: str) -> dict[str, Any]:
    """Parse the text of `arguments_text`. Raises `ValueError` for any other text."""
    parsed: dict[str, Any] = {}
    decoder, rest = json.JSONDecoder(), text
    while rest:
        name, sign, rest = rest.partition("=")
        if not (sign and name.isidentifier()):
            raise ValueError(f"not arguments: {text}")
        parsed[name], end = decoder.raw_decode(rest)
        if rest[end : end + 2] not in ("", ", "):
            raise ValueError(f"not arguments: {text}")
        rest = rest[end + 2 :]
    return parsed
