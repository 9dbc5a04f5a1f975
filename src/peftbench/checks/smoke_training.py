"""Train the pocket model briefly to check whether a task can be learned."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from math import hypot
from pathlib import Path
from typing import Any

from peftbench.checks.static_checks import Finding
from peftbench.core.registry import UserError
from peftbench.core.spec import RunResult, RunSpec
from peftbench.grid.expand import expand
from peftbench.tasks._splits import Splits

ROWS, TEST_ROWS, BATCH, EPOCHS, TOKENS = 256, 100, 8, 4, 120_000
"""Training rows, test rows, batch size, maximum epochs and tokens: about a minute on one core."""
LORA = {"use": "lora", "alpha": 32, "dropout": 0.0, "modules": ["q", "k", "v", "o", "gate", "up", "down"]}
LEARNING_RATE = 5e-3
SURE = 2.0
"""Minimum gain over the untrained model, in standard errors."""


def specs(name: str, arguments: Mapping[str, Any]) -> list[RunSpec]:
    """Return runs of the untrained model and LoRA. Raises `UserError` for an unknown name or an invalid argument."""
    grid = {
        "name": "check",
        "methods": ["none", LORA],
        "tasks": [{"use": name, **arguments}],
        "train": {"learning_rate": LEARNING_RATE, "per_device_train_batch_size": BATCH, "validation_rows": 32},
        "eval": {"test_rows": TEST_ROWS},
    }
    found = expand(grid)
    if len(found) != 2:
        raise UserError(f"'{name}' with these arguments is more than one task: check one at a time")
    return found


def learns(asked: Sequence[RunSpec], splits: Splits, mean_tokens: float, data: Path | None) -> Finding:
    """Report whether LoRA improves the main metric over the untrained model; only a failed run is a problem."""
    from peftbench.single_run import Worker, run

    size = min(ROWS, len(splits.train))
    steps = max(1, min(EPOCHS * size // BATCH, int(TOKENS / (BATCH * mean_tokens))))
    worker, results = Worker(data), []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for spec in asked:
            settings = spec.train.model_copy(update={"max_steps": steps} if spec.method.name != "none" else {})
            sized = spec.model_copy(update={"size": size, "train": settings})
            results.append(run(sized, worker, Path(folder), lambda _event: None)[0])
    failed = [result for result in results if result.status != "ok"]
    if failed:
        return Finding("training", f"{failed[0].spec.method.name}: {failed[0].status}: {failed[0].error}", True)
    return _compared(*results)


def _compared(untouched: RunResult, trained: RunResult) -> Finding:
    metric, scored = next(iter(trained.scores.items()))
    before, after = untouched.scores[metric].value, scored.value
    if before is None or after is None:
        return Finding("training", f"it runs, but {metric} is not available here: {'; '.join(trained.notes)}", True)
    error = hypot(untouched.scores[metric].standard_error or 0, scored.standard_error or 0)
    learned = after - before > SURE * error
    first, last = trained.curve[0].validation_loss, trained.validation_loss
    said = f"{metric} {before:.1f} untouched, {after:.1f} after {trained.steps} steps of LoRA"
    said += f" (± {error:.1f}): "
    said += "it is learned" if learned else "not learned in this minute by a model this small"
    facts = {
        "metric": metric,
        "untouched": before,
        "trained": after,
        "standard_error": error,
        "learned": learned,
        "steps": trained.steps,
        "first_validation_loss": first,
        "validation_loss": last,
    }
    return Finding("training", said, facts=facts)
