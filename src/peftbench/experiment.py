"""One run, from what was asked to what was found. Read this first."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from peftbench import machine
from peftbench.engine.adapters import save
from peftbench.engine.estimate import Estimate, estimate
from peftbench.engine.load import Base
from peftbench.engine.meter import Meter
from peftbench.engine.predict import generate, in_batches, rank
from peftbench.engine.tokens import Encoded, Encoder, encode
from peftbench.engine.train import DivergedError, OutOfMemoryError, Report, Trained, Trainer
from peftbench.methods import METHODS, Adapted, Method
from peftbench.metrics import Answers, score
from peftbench.models import find
from peftbench.registry import UserError
from peftbench.seeds import stream
from peftbench.spec import Costs, DataFacts, RunResult, RunSpec, Score, Status
from peftbench.tasks import TASKS, Example, Task
from peftbench.tasks.splits import Limits, Splits, split


@dataclass
class Worker:
    """What stays between the runs of one process: the resident base model, and where data is."""

    data: Path | None = None
    keep_adapters: bool = False
    base: Base | None = None

    def borrow(self, spec: RunSpec) -> Base:
        """The base model of a run, loaded if another one is resident."""
        ref = find(spec.model.name)
        if self.base is None or (self.base.ref, self.base.precision) != (ref, spec.train.precision):
            self.base = None
            self.base = Base(ref, spec.train.precision)
        return self.base


@dataclass
class Found:
    """What a run has found so far; a run that fails keeps what it had."""

    scores: dict[str, Score] = field(default_factory=dict)
    invalid_share: float | None = None
    trained: Trained = field(default_factory=Trained)
    costs: dict[str, Any] = field(default_factory=dict)
    data: DataFacts | None = None
    learning_rate: float | None = None
    notes: list[str] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    checksum: str | None = None
    reloaded: bool = False


def run(spec: RunSpec, worker: Worker, folder: Path, report: Report) -> tuple[RunResult, list[dict[str, Any]]]:
    """Do one run. Returns its result and its predictions; whatever goes wrong in it is its result."""
    found = Found()
    status: Status = "ok"
    error = None
    try:
        _run(spec, worker, folder, report, found)
    except DivergedError as problem:
        status, error = "diverged", str(problem)
    except (OutOfMemoryError, torch.OutOfMemoryError, MemoryError) as problem:
        status, error = "out-of-memory", str(problem) or type(problem).__name__
    except UserError as problem:
        status, error = "failed", str(problem)
    except Exception as problem:
        import traceback

        (folder / "error.txt").write_text(traceback.format_exc())
        status, error = "failed", f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
    return _result(spec, found, status, error), found.predictions


def _run(spec: RunSpec, worker: Worker, folder: Path, report: Report, found: Found) -> None:
    meter = Meter()
    task = TASKS[spec.task.name]

    # Data: the same rows in the same order for every method.
    limits = Limits(spec.train.validation_rows, spec.eval.test_rows)
    splits = split(task, spec.task.arguments, spec.size, spec.seed, limits, worker.data)
    found.notes += splits.notes

    # Model: resident, and proved unchanged after the run.
    base = worker.borrow(spec)
    found.checksum = base.checksum
    encoder = Encoder(base.tokenizer, task.facts, spec.train.max_length)
    with meter.phase("tokenize"):
        train, validation, test = (encode(encoder, rows) for rows in (splits.train, splits.validation, splits.test))
    found.data = _data_facts(splits, task, (train, validation, test))
    try:
        # Method: the seed is set before the adapter is created.
        torch.manual_seed(stream(spec.seed, "init"))
        with _applied(base, spec, found) as adapted:
            # Train, and go back to the best step.
            if found.learning_rate is not None:
                trainer = Trainer(adapted, spec.train, found.learning_rate, base.precision_used, spec.seed)
                found.trained = trainer.fit(train, validation, meter, report)

            # Predict and score.
            report({"phase": "test"})
            with meter.phase("eval"):
                predictions = answer(spec, task, base, adapted, test)
            _score(task, splits.test, predictions, found)

            # Save, for its size at least.
            if found.trained.steps:
                found.costs["adapter_bytes"] = save(adapted, folder / "adapter", worker.keep_adapters)
    finally:
        found.reloaded = base.restore()
        _time(found, meter, base)


@contextmanager
def _applied(base: Base, spec: RunSpec, found: Found) -> Iterator[Adapted]:
    """The base model with the method on it, measured; taken off when the context is left."""
    method = METHODS[spec.method.name]
    adapted = adapt(base, method, spec)
    try:
        found.notes += adapted.notes
        found.costs |= _sizes(spec, base, adapted)
        if method.facts.trains:
            found.learning_rate = spec.train.learning_rate or method.facts.learning_rate
        yield adapted
    finally:
        if adapted.remove is not None:
            adapted.remove()


def adapt(base: Base, method: Method, spec: RunSpec) -> Adapted:
    """The base model with a method applied; what is trained is float32, whatever the base is.

    Raises `UserError` for a method that would train nothing, or that cannot train as asked.
    """
    if spec.train.gradient_checkpointing and method.facts.gradient_checkpointing:
        raise UserError(f"{method.name} refuses gradient checkpointing: {method.facts.gradient_checkpointing}")
    adapted: Adapted = method.function(base.model, **spec.method.arguments)
    trained = [p for p in adapted.model.parameters() if p.requires_grad]
    if method.facts.trains and not trained:
        raise UserError(f"method {spec.method} would train nothing on this model")
    for parameter in trained:
        parameter.data = parameter.data.float()
    if spec.train.gradient_checkpointing:
        adapted.network.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted


def answer(spec: RunSpec, task: Task, base: Base, adapted: Adapted, rows: list[Encoded]) -> list[str]:
    """The answers to test rows, as text, merged where that is exact."""
    how = spec.eval.answer
    ranked = bool(task.facts.labels) if how == "auto" else how == "rank"
    if ranked and not all(row.choices for row in rows):
        raise UserError(f"task '{task.name}' has no choices to rank: use answer = \"generate\"")
    adapted.model.eval()
    merged = adapted.merge is not None and base.dtype == torch.float32
    low = torch.autocast(base.model.device.type, torch.bfloat16, enabled=base.dtype == torch.bfloat16)
    end = base.tokenizer.eos_token_id

    def texts(batch: list[Encoded]) -> list[str]:
        if ranked:
            return [_text(base, row.choices[i][:-1]) for row, i in zip(batch, rank(adapted, batch), strict=True)]
        return [_text(base, ids) for ids in generate(adapted, batch, end, task.facts.max_new_tokens)]

    with low, adapted.merge() if adapted.merge is not None and merged else nullcontext():
        return in_batches(rows, spec.eval.per_device_eval_batch_size, texts)


def _text(base: Base, ids: list[int]) -> str:
    return str(base.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _score(task: Task, examples: list[Example], predictions: list[str], found: Found) -> None:
    """Every metric of the task; labels are compared without regard to case."""
    facts = task.facts
    fold: Callable[[str], str] = str.casefold if facts.labels else str
    answers = Answers(
        predictions=[fold(text.strip()) for text in predictions],
        references=[tuple(fold(text.strip()) for text in example.answers) for example in examples],
        labels=[fold(label) for label in facts.labels],
        positive=fold(facts.positive) if facts.positive else None,
    )
    for name in facts.metrics:
        value, error = score(name, answers)
        found.scores[name] = Score(value=value, standard_error=error)
    if answers.labels:
        outside = sum(text not in answers.labels for text in answers.predictions)
        found.invalid_share = outside / len(predictions)
    found.predictions = [
        {"prediction": text, "references": list(example.answers)}
        for text, example in zip(predictions, examples, strict=True)
    ]


def _sizes(spec: RunSpec, base: Base, adapted: Adapted) -> dict[str, int]:
    parameters = list(adapted.model.parameters())
    arguments = json.dumps(spec.method.arguments)
    known = _estimate(base.config.to_json_string(use_diff=False), spec.method.name, arguments)
    return {
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "total_parameters": sum(p.numel() for p in parameters),
        "forward_flops_512": known.forward_flops_512,
        "extra_forward_flops_512": 0 if adapted.merge is not None else known.extra_forward_flops_512,
    }


@lru_cache(maxsize=256)
def _estimate(config_json: str, method: str, arguments_json: str) -> Estimate:
    from transformers import AutoConfig

    facts = json.loads(config_json)
    return estimate(AutoConfig.for_model(facts.pop("model_type"), **facts), method, **json.loads(arguments_json))


def _time(found: Found, meter: Meter, base: Base) -> None:
    seconds, trained = meter.seconds, found.trained
    found.costs |= {
        "train_seconds": seconds["train"] if trained.steps else None,
        "tokens_per_second": trained.tokens / seconds["train"] if trained.steps else None,
        "peak_memory_bytes": trained.peak_memory_bytes,
        "validation_seconds": seconds.get("validation"),
        "eval_seconds": seconds.get("eval"),
        "tokenize_seconds": seconds.get("tokenize"),
        "load_seconds": base.load_seconds,
    }
    if trained.peak_memory_bytes is not None:
        found.costs["peak_memory_source"] = "cuda-allocator" if torch.cuda.is_available() else "tracked-tensors"


def _data_facts(splits: Splits, task: Task, encoded: tuple[list[Encoded], ...]) -> DataFacts:
    train, validation, test = map(len, encoded)
    return DataFacts(
        source=f"{splits.origin}: {task.facts.source.name}",
        revision=splits.revision,
        fingerprint=splits.fingerprint,
        train_rows=train,
        validation_rows=validation,
        test_rows=test,
        truncated_rows=sum(row.truncated for rows in encoded for row in rows),
    )


def _result(spec: RunSpec, found: Found, status: Status, error: str | None) -> RunResult:
    trained = found.trained
    best = [point.validation_loss for point in trained.curve if point.step == trained.best_step]
    return RunResult(
        id=spec.id,
        spec=spec,
        status=status,
        scores=found.scores if status == "ok" else {},
        invalid_share=found.invalid_share,
        validation_loss=best[0] if best else None,
        best_step=trained.best_step or None,
        steps=trained.steps or None,
        learning_rate=found.learning_rate,
        costs=Costs(**found.costs),
        curve=tuple(trained.curve),
        data=found.data,
        base_checksum=found.checksum,
        base_reloaded=found.reloaded,
        machine=machine.facts(),
        versions=machine.versions(),
        notes=(*found.notes, *trained.notes),
        error=error,
    )
