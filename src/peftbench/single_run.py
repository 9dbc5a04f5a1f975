"""One run from its spec to its result. Read this first."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from peftbench.core import device, provenance
from peftbench.core.machine_faults import EnvironmentFaultError, environment_fault
from peftbench.core.registry import RefusedError, UserError, error_line
from peftbench.core.seeds import stream, streams
from peftbench.core.spec import Costs, DataFacts, Latency, Merged, Merging, RunResult, RunSpec, Status
from peftbench.core.text_escaping import writable
from peftbench.engine.base_integrity import ProcessState, listed
from peftbench.engine.base_model import Base, NotRestoredError
from peftbench.engine.checkpoint import save_checkpoint
from peftbench.engine.decode_strategy import NOTES
from peftbench.engine.exceptions import DivergedError, PrunedError, check_weights
from peftbench.engine.generation import answer_rows, check_fits, decoding, is_ranked
from peftbench.engine.merging import decide
from peftbench.engine.phase_meter import Meter
from peftbench.engine.precision import Precision
from peftbench.engine.tokenization import (
    Encoded,
    Encoder,
    check_choices,
    check_vocabulary,
    check_whole,
    encode_examples,
    unwritable,
)
from peftbench.engine.train import ReportProgress, Trained, Trainer, trained_in_float32
from peftbench.methods import METHODS, Adapted, Method, given
from peftbench.methods._adapter_placement import check_placed, meant_by, names_of
from peftbench.methods._model_compatibility import base_quantisation, check_possible
from peftbench.methods._saved_files import describe
from peftbench.models import at, is_commit, resolved
from peftbench.profiling.merge_fidelity import merged_answers
from peftbench.profiling.parameters_and_flops import untrained_costs
from peftbench.profiling.post_training_measurements import PostTrainingMeasurements
from peftbench.results.store import write_predictions
from peftbench.tasks import Example, Task, resolve
from peftbench.tasks._scoring import (
    NOTHING,
    TaskScores,
    chance,
    check_metrics,
    facts_of_answers,
    kept_answers,
    score_task,
)
from peftbench.tasks._split_checks import truncation
from peftbench.tasks._splits import RowLimits, Splits, split


class BrokenMethodError(UserError):
    """A method violates the contract of methods. The run counts as failed, not as refused."""


@dataclass
class Worker:
    """State that is kept between the runs of one process: the resident base model and the data folder.

    `precisions`: what the launcher chose for runs whose precision is "auto", by the name of the model; else fp32.

    `broken`: the process must be replaced, because the GPU has failed or a run has changed the process.
    """

    data: Path | None = None
    keep_adapters: bool = False
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    base: Base | None = None
    broken: bool = False
    process: ProcessState | None = None

    def watch(self) -> None:
        """Record the state of the process before a run."""
        if self.process is None:
            self.process = ProcessState()
        self.process.see()

    def borrow(self, spec: RunSpec) -> Base:
        """Return the base model of a run; load it if needed. Raises `UserError` if its version differs."""
        ref = at(spec.model.name, spec.model.version)
        if (ref if is_commit(ref.version) else resolved(ref)).version != spec.model.version:
            raise UserError(f"model {spec.model.name} has changed since the grid was read: repeat the command")
        with refusing():
            asked = spec.train.precision
            precision = self.precisions.get(spec.model.name, "fp32") if asked == "auto" else asked
            wanted = (ref, precision, base_quantisation(spec))
        if self.base is None or (self.base.ref, self.base.precision, self.base.quantise) != wanted:
            self.base = None
            self.base = Base(*wanted)
        return self.base

    def restore(self, found: "RunFindings") -> None:
        """Check that base model and process are unchanged. If not, load the model again or replace the process."""
        base, self.base = self.base, None
        if self.process is not None and (changed := self.process.changed()):
            self.broken = True
            found.notes.append(f"the run changed its process, which was replaced: {listed(changed)}")
        if base is None or self.broken:
            return
        try:
            found.reloaded = base.restore()
            self.base = base
        except NotRestoredError as problem:
            self.broken = True
            found.notes.append(f"the run changed its process, which was replaced: {problem}")
        except Exception as problem:
            found.notes.append(f"the base model could not be loaded again after the run: {error_line(problem)}")
        if base.left:
            found.notes.append(f"the run changed the base model, which was loaded again: {listed(list(base.left))}")


@dataclass
class RunFindings:
    """Findings of a run so far; a failed run keeps those it has."""

    meter: Meter = field(default_factory=Meter)
    scored: TaskScores = NOTHING
    answers: dict[str, Any] = field(default_factory=dict)
    merging: Merging | None = None
    merged: Merged | None = None
    latency: tuple[Latency, ...] = ()
    chance: float | None = None
    trained: Trained = field(default_factory=Trained)
    costs: dict[str, Any] = field(default_factory=dict)
    data: DataFacts | None = None
    learning_rate: float | None = None
    notes: list[str] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    base: dict[str, Any] = field(default_factory=dict)
    reloaded: bool = False


def run(spec: RunSpec, worker: Worker, folder: Path, report: ReportProgress) -> tuple[RunResult, list[dict[str, Any]]]:
    """Do one run. Returns its result and its predictions; whatever goes wrong in it is its result.

    Raises `EnvironmentFaultError` for what is wrong with the machine, which is no result of the run.
    """
    found = RunFindings()
    worker.watch()
    try:
        status, error = _attempt(spec, worker, folder, report, found)
    finally:
        # After the attempt, when nothing holds on to its tensors any more.
        worker.restore(found)
    return _result(spec, found, status, error), found.predictions


def _attempt(
    spec: RunSpec, worker: Worker, folder: Path, report: ReportProgress, found: RunFindings
) -> tuple[Status, str | None]:
    try:
        _run(spec, worker, folder, report, found)
    except (DivergedError, PrunedError) as problem:
        return problem.status, str(problem)
    except UserError as problem:
        _blame_environment(problem)
        return "refused" if isinstance(problem, RefusedError) else "failed", str(problem)
    except Exception as problem:
        if device.is_out_of_memory(problem):
            return "out-of-memory", error_line(problem)
        _blame_environment(problem)
        worker.broken = device.has_failed(problem)
        (folder / "error.txt").write_text(traceback.format_exc())
        return "failed", error_line(problem)
    return "ok", None


def _blame_environment(problem: Exception) -> None:
    """Raises `EnvironmentFaultError` if an error is a fault of the machine."""
    fault = environment_fault(problem)
    if fault is not None:
        raise EnvironmentFaultError(fault) from problem


def _run(spec: RunSpec, worker: Worker, folder: Path, report: ReportProgress, found: RunFindings) -> None:
    meter, task = found.meter, resolve(spec.task.name, spec.task.arguments)
    if task.facts.version != spec.task.version:
        raise UserError(f"task {spec.task} has changed since the grid was read: repeat the command")

    # Data: the same rows in the same order for every method.
    limits = RowLimits(spec.train.validation_rows, spec.eval.test_rows)
    splits = split(task, spec.task.arguments, spec.size, spec.seed, limits, root=worker.data)
    found.notes += splits.notes
    check_metrics(task, splits.test)

    # Model: resident, and proved unchanged after the run.
    base = worker.borrow(spec)
    found.base, found.costs["load_seconds"] = base.facts(), base.load_seconds
    with refusing(), meter.phase("tokenize"):
        encoder = base.encoder(task.facts, spec.train.max_length)
        train, validation, test = (
            encode_examples(encoder, rows) for rows in (splits.train, splits.validation, splits.test)
        )
    found.data = _data_facts(splits, task, (train, validation, test), encoder.form, spec.train.max_length)
    with refusing():
        check_whole(encoder, [*splits.train, *splits.validation, *splits.test], [*train, *validation, *test])
        ranked = is_ranked(task, spec.eval, test)
        _check_tokens(encoder, base, ranked, [*train, *validation, *test])
    if not ranked:
        for part, examples, rows in (("training", splits.train, train), ("test", splits.test, test)):
            found.notes += [f"{part}: {said}"] if (said := unwritable(encoder, examples, rows)) else []

    # Method: after what needs the untouched base; the seed is set before the adapter is created.
    measurements = PostTrainingMeasurements(base, spec.eval)
    torch.manual_seed(stream(spec.seed, "init"))
    with _applied(base, spec, found) as adapted:
        with refusing():
            check_fits(base, adapted, task, [*train, *validation, *test])
        check_weights(adapted.model, "at the start")

        # Train, and go back to the best step.
        if found.learning_rate is not None:
            trainer = Trainer(adapted, spec.train, found.learning_rate, base.precision, spec.seed)
            found.trained = trainer.trained
            trainer.fit(train, validation, meter, report, spec.trial)

        # Predict and score.
        report({"phase": "test"})
        _test(adapted, measurements, spec, (task, splits.test, test), found, folder=folder)

        # Save, for its size at least.
        if found.trained.steps:
            origin = describe(spec, base.ref, base.quantise)
            with TemporaryDirectory(prefix="peftbench-") as elsewhere:
                place = folder if worker.keep_adapters else Path(elsewhere)
                found.costs["adapter_bytes"] = save_checkpoint(adapted, place / "adapter", origin=origin)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn a `UserError` into `RefusedError`: the combination cannot be run, which is a result of the run."""
    try:
        yield
    except BrokenMethodError:
        raise
    except UserError as problem:
        raise RefusedError(str(problem)) from problem


@contextmanager
def _applied(base: Base, spec: RunSpec, found: RunFindings) -> Iterator[Adapted]:
    """Apply the method to the base model and count its costs; remove it when the context is left."""
    method = METHODS[spec.method.name]
    # Files that have changed since are no refusal.
    given(spec.method)
    with refusing():
        adapted = adapt(base, method, spec)
    try:
        costs, notes = untrained_costs(base, adapted, spec.method)
        found.costs |= costs
        found.notes += [*adapted.notes, *notes]
        if method.facts.trains:
            found.learning_rate = spec.train.learning_rate or method.facts.learning_rate
        yield adapted
    finally:
        if adapted.remove is not None:
            adapted.remove()


def adapt(base: Base, method: Method, spec: RunSpec) -> Adapted:
    """Return the base model with a method applied; trained weights are float32 for any type of the base.

    Raises `UserError` if the method has nothing to train or does not support the settings of the run.
    """
    check_possible(method, spec, getattr(base.model, "is_quantized", False))
    arguments = given(spec.method)
    names, allowed = names_of(base.model), meant_by(base.model, method, arguments)
    adapted: Adapted = method.function(base.model, **arguments)
    if not isinstance(adapted, Adapted):
        raise BrokenMethodError(f"method {spec.method.name} returned {type(adapted).__name__}, not an Adapted")
    try:
        if method.facts.trains and not any(p.requires_grad for p in adapted.model.parameters()):
            raise UserError(f"method {spec.method} has nothing to train on this model")
        check_placed(adapted, names, allowed)
    except UserError:
        if adapted.remove is not None:
            adapted.remove()
        raise
    trained_in_float32(adapted.model)
    if spec.train.gradient_checkpointing:
        adapted.network.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted


def _check_tokens(encoder: Encoder, base: Base, ranked: bool, rows: list[Encoded]) -> None:
    """Raises `UserError` for tokens outside the vocabulary, and for choices with identical tokens."""
    check_vocabulary(encoder, rows, base.model.get_input_embeddings().weight.shape[0])
    # The choices of a row matter where they are ranked, the labels of a task always: they are its targets.
    if ranked or encoder.facts.labels:
        check_choices(encoder, rows)


def _test(
    adapted: Adapted,
    measurements: PostTrainingMeasurements,
    spec: RunSpec,
    tested: tuple[Task, list[Example], list[Encoded]],
    found: RunFindings,
    *,
    folder: Path,
) -> None:
    task, examples, rows = tested
    adapted = _merged_if_exact(adapted, measurements.base, rows, found)
    how = decoding(adapted, measurements.base, task, spec.eval, rows)
    found.notes += [NOTES[how]] if how in NOTES else []
    with found.meter.phase("eval"):
        predictions = answer_rows(adapted, measurements.base, task, spec.eval, rows, how=how)
    _score(task, examples, predictions, found, folder)
    _merge_fidelity(adapted, measurements.base, spec, tested, found)
    costs, found.latency, notes = measurements.measure(adapted, task, rows)
    found.costs |= costs
    found.notes += notes


def _merged_if_exact(adapted: Adapted, base: Base, rows: list[Encoded], found: RunFindings) -> Adapted:
    """Return the adapted model, with a merge if that is proved exact; record the decision and its costs."""
    adapted, found.merging = decide(adapted, base, rows)
    if found.merging is not None and not found.merging.exact:
        found.notes.append(f"answered unmerged: {found.merging.why}")
    elif found.merging is not None and found.costs["extra_forward_flops_512"] is not None:
        found.costs["extra_forward_flops_512"] = 0
    return adapted


def _score(task: Task, examples: list[Example], predictions: list[str], found: RunFindings, folder: Path) -> None:
    # Answers cost more than scores: they are on disk before any metric is asked.
    found.predictions = kept_answers(examples, predictions)
    write_predictions(folder, found.predictions)
    found.answers = facts_of_answers(task)
    found.scored = score_task(task, examples, predictions)
    found.chance = chance(task, examples)


def _merge_fidelity(
    adapted: Adapted, base: Base, spec: RunSpec, tested: tuple[Task, list[Example], list[Encoded]], found: RunFindings
) -> None:
    """Score the answers of the merged model if `merge_fidelity` is set; the scores of the run are not changed."""
    if not spec.eval.merge_fidelity:
        return
    task, examples, rows = tested
    try:
        measured = merged_answers(adapted, base, task, spec.eval, rows)
    except DivergedError as problem:
        found.notes.append(f"no merge fidelity: merged, {problem}")
        return
    if measured is None:
        found.notes.append(f"{spec.method} cannot be merged: no merge fidelity")
    else:
        found.merged = Merged(scores=score_task(task, examples, measured[0]).scores, max_logit_difference=measured[1])


def _costs(found: RunFindings) -> Costs:
    seconds, trained = found.meter.seconds, found.trained
    return Costs(
        **found.costs,
        **found.meter.energy.costs(),
        train_seconds=seconds["train"] if trained.steps else None,
        tokens_per_second=trained.tokens / seconds["train"] if trained.steps else None,
        **({} if trained.memory is None else trained.memory.costs()),
        peak_reserved_bytes=trained.reserved_bytes,
        peak_memory_source=None if trained.memory is None else device.memory_source(),
        validation_seconds=seconds.get("validation"),
        eval_seconds=seconds.get("eval"),
        tokenize_seconds=seconds.get("tokenize"),
    )


def _data_facts(
    splits: Splits, task: Task, encoded: tuple[list[Encoded], ...], form: dict[str, Any], max_length: int
) -> DataFacts:
    train, validation, test = map(len, encoded)
    cut = sum(row.truncated for rows in encoded for row in rows)
    return DataFacts(
        source=f"{splits.origin}: {task.facts.source.name}",
        revision=splits.revision,
        fingerprint=splits.fingerprint,
        train_rows=train,
        validation_rows=validation,
        test_rows=test,
        truncated_rows=cut,
        remarks=(*splits.remarks, *truncation(cut, train + validation + test, max_length)),
        unwritable_targets=sum(row.unwritable for rows in encoded for row in rows),
        prompt_form=form,
    )


def _result(spec: RunSpec, found: RunFindings, status: Status, error: str | None) -> RunResult:
    trained = found.trained
    best = [point.validation_loss for point in trained.curve if point.step == trained.best_step]
    return RunResult(
        id=spec.id,
        spec=spec,
        status=status,
        **(found.scored if status == "ok" else found.scored._replace(scores={}, row_scores=None))._asdict(),
        merging=found.merging,
        merged=found.merged if status == "ok" else None,
        chance=found.chance,
        answers=found.answers,
        validation_loss=best[0] if best else None,
        best_step=trained.best_step or None,
        steps=trained.steps or None,
        learning_rate=found.learning_rate,
        costs=_costs(found),
        latency=found.latency,
        curve=tuple(trained.curve),
        data=found.data,
        base=found.base,
        base_reloaded=found.reloaded,
        seeds=streams(spec.seed),
        **provenance.provenance_record(),
        notes=tuple(map(writable, (*found.notes, *trained.notes))),
        error=None if error is None else writable(error),
    )
