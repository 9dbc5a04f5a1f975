"""Stores of results that nobody has run, for tests of what verbs say about them."""

import random
from pathlib import Path
from typing import Any

from peftbench.core.spec import Choice, Costs, DataFacts, Evaluation, Point, RunResult, RunSpec, Score, Training, Trial
from peftbench.results.store import Store

CURVE = tuple(Point(step=n, tokens=n, seconds=n, validation_loss=3 / n) for n in (1, 2, 3))
LOSSES = {"none": 2.0, "ia3": 1.4, "lora": 0.9, "full": 0.8}


def result(method: str, task: str = "sst2", seed: int = 0, size: Any = 100, **more: Any) -> RunResult:
    """A run that went well, with `more`: fields of `RunResult`, `arguments` and `tuned` of the method, `model`,
    `train`, `eval`, `trial`.
    """
    rng = random.Random(f"{method} {task} {seed} {more.get('arguments')} {more.get('train')}")
    quality = rng.gauss(80 - 20 * LOSSES.get(method, 1.0), 1.0)
    model = more.pop("model", "pocket")
    spec = RunSpec(
        model=model if isinstance(model, Choice) else Choice(name=model),
        method=Choice(name=method, arguments=more.pop("arguments", {}), tuned=more.pop("tuned", ())),
        task=Choice(name=task),
        size=size,
        seed=seed,
        train=Training(**more.pop("train", {})),
        eval=Evaluation(**more.pop("eval", {})),
        trial=Trial(**more["trial"]) if more.get("trial") else None,
    )
    more.pop("trial", None)
    trains = method != "none"
    found: dict[str, Any] = {
        "status": "ok",
        "scores": {"accuracy": Score(value=quality, standard_error=2.0)},
        "costs": Costs(
            trainable_parameters=1000 if trains else 0,
            total_parameters=10**6,
            extra_forward_flops_512=0,
            train_seconds=2.0 if trains else None,
            tokens_per_second=1000.0 if trains else None,
            peak_memory_bytes=10**7 if trains else None,
        ),
        "data": DataFacts(
            source="generator: made",
            fingerprint="ab",
            train_rows=size if isinstance(size, int) else 1000,
            validation_rows=10,
            test_rows=200,
        ),
        "base": {"precision": "fp32"},
    }
    if trains:
        found |= {"steps": 3, "best_step": 3, "learning_rate": 1e-3, "validation_loss": 1.0}
    return RunResult(id=spec.id, spec=spec, **(found | more))


def of(spec: RunSpec, **more: Any) -> RunResult:
    """A result of a run that a grid asks for."""
    made = result(spec.method.name, **more) if more.get("status", "ok") == "ok" else failed(spec.method.name, **more)
    return RunResult.model_validate(made.model_dump() | {"id": spec.id, "spec": spec.model_dump()})


def failed(method: str, error: str = "it broke", **more: Any) -> RunResult:
    """A run that found nothing."""
    nothing: dict[str, Any] = {"status": "failed", "scores": {}, "costs": Costs(), "data": None, "error": error}
    return result(method, **(nothing | {"steps": None, "curve": (), "validation_loss": None} | more))


def store(root: Path, *results: RunResult) -> Store:
    """A store of these results."""
    place = Store(root)
    for one in results:
        place.finish(place.begin(one.spec), one, [])
    return place
