"""The training loop of all methods: the same rows in the same order, regular validation, the best step is kept."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from peftbench.core import device
from peftbench.core.seeds import stream
from peftbench.core.spec import Point, Training, Trial
from peftbench.engine.exceptions import PrunedError, check_weights, finite
from peftbench.engine.families import model_family
from peftbench.engine.generation import in_batches
from peftbench.engine.known_before_training import training_context
from peftbench.engine.peak_memory import Memory, allocator_peak, states, tensor_bytes, tracked
from peftbench.engine.phase_meter import Meter
from peftbench.engine.quantization import quantization_constants
from peftbench.engine.tokenization import Encoded
from peftbench.methods import Adapted

ReportProgress = Callable[[dict[str, Any]], None]
State = dict[str, Tensor]
AfterStep = Callable[[int], None]


@dataclass
class Trained:
    """Results of training. `memory`: of training steps only; `reserved_bytes`: reserved by the allocator of a GPU."""

    curve: list[Point] = field(default_factory=list)
    best_step: int = 0
    steps: int = 0
    tokens: int = 0
    memory: Memory | None = None
    reserved_bytes: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Best:
    """The step of the lowest validation loss so far, with a copy of what was trained."""

    step: int = 0
    loss: float = math.inf
    state: State = field(default_factory=dict)
    waited: int = 0

    def see(self, step: int, loss: float, state: Callable[[], State]) -> None:
        """Record a validation; `state` is called only if the loss is the lowest so far."""
        self.waited += 1
        if loss < self.loss:
            self.step, self.loss, self.state, self.waited = step, loss, state(), 0


def trained_in_float32(model: nn.Module) -> list[nn.Parameter]:
    """Convert the trained parameters of a model to float32, in which they are updated, and return them."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    return trained


class Trainer:
    """Trains an adapted model and leaves it at its best step.

    A step is one optimiser update of `per_device_train_batch_size × gradient_accumulation_steps` rows. Its loss is the
    mean cross-entropy over all target tokens of those rows, so that cutting them into smaller micro-batches, as is done
    when memory runs out, changes the cost and not the mathematics.
    """

    def __init__(self, adapted: Adapted, asked: Training, learning_rate: float, precision: str, seed: int) -> None:
        self.adapted, self.asked, self.rate, self.seed = adapted, asked, learning_rate, seed
        self.trained = Trained()
        self.low_precision = precision == "bf16"
        self.parameters = self._trainable()
        self.micro_rows = asked.per_device_train_batch_size
        self._gradients: tuple[int, Tensor] | None = None
        self.step_rows = asked.per_device_train_batch_size * asked.gradient_accumulation_steps

    def fit(
        self,
        train: Sequence[Encoded],
        validation: Sequence[Encoded],
        meter: Meter,
        report: ReportProgress,
        trial: Trial | None = None,
    ) -> Trained:
        """Train on rows, validate regularly, and restore the step with the lowest validation loss.

        Raises `DivergedError` for a loss, gradient or weight that is not finite, `MemoryError` if a single row does not
        fit, `PrunedError` if a trial exceeds its ceiling; `trained` then has the results so far.
        """
        trained, best, ceilings = self.trained, Best(), dict(trial.ceilings) if trial else {}
        total = total_steps(self.asked, len(train))
        trained.memory = self._probe(train)
        if self.adapted.prepare is not None:
            with meter.phase("train"):
                self.adapted.prepare(training_context(self.adapted.network, total, lambda: self._batches(train, total)))
            self.parameters = self._trainable()
        optimizer, scheduler = self.optimizer(total)
        every = validate_every(self.asked, total)
        torch.manual_seed(stream(self.seed, "dropout"))
        for step, rows in enumerate(self._batches(train, total), start=1):
            with meter.phase("train"), self._gpu_peak(optimizer):
                loss = self.step(rows, optimizer, scheduler, self.adapted.after_step)
            trained.steps = step
            trained.tokens += sum(len(row.prompt) + len(row.target) for row in rows)
            seconds = meter.seconds["train"]
            report({"step": step, "steps": total, "loss": loss, "tokens_per_second": trained.tokens / seconds})
            if step % every == 0 or step == total:
                self._check_gradients()
                check_weights(self.adapted.model, f"after step {step}")
                with meter.phase("validation"):
                    held_out = finite(self.loss(validation), "the validation loss", step)
                trained.curve.append(_point(trained, seconds, loss, held_out))
                report({"step": step, "steps": total, "validation_loss": held_out})
                best.see(step, held_out, self._state)
                if best.loss > ceilings.get(step, math.inf):
                    trained.best_step = best.step
                    raise PrunedError(f"at step {step} the median of earlier trials was {ceilings[step]:.4g}")
                if best.waited >= (self.asked.early_stopping_patience or math.inf):
                    break
        trained.best_step = best.step
        self._load(best.state)
        return trained

    def _trainable(self) -> list[Tensor]:
        return [p for p in self.adapted.model.parameters() if p.requires_grad]

    def _batches(self, rows: Sequence[Encoded], total: int) -> Iterator[list[Encoded]]:
        """Yield `total` batches in the order of the seed, which is the same for every method."""
        order = torch.Generator().manual_seed(stream(self.seed, "order"))
        made = 0
        while True:
            shuffled = torch.randperm(len(rows), generator=order).tolist()
            for start in range(0, len(rows), self.step_rows):
                if made == total:
                    return
                made += 1
                yield [rows[i] for i in shuffled[start : start + self.step_rows]]

    def optimizer(self, total: int, rate: float | None = None) -> tuple[Any, Any]:
        """Return AdamW and its schedule for `total` steps, as in `transformers.Trainer`; `rate` replaces its own."""
        rate = self.rate if rate is None else rate
        own, decay = self.adapted.param_groups, self.asked.weight_decay
        groups = own(rate) if own is not None else [{"params": self.parameters}]
        if decay:
            groups = sparing_norms_and_biases(self.adapted.model, groups, decay)
        optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
        warm = warmup_steps(self.asked, total)
        scheduler = get_scheduler(self.asked.lr_scheduler_type, optimizer, warm, total)
        return optimizer, scheduler

    def step(self, rows: list[Encoded], optimizer: Any, scheduler: Any, after: AfterStep | None = None) -> float:
        """Make an optimiser step; return its mean loss per target token. `after` gets the number of the step."""
        self.adapted.model.train()
        while True:
            try:
                loss = self.backward(rows)
                break
            except (RuntimeError, MemoryError) as error:
                if not device.is_out_of_memory(error):
                    raise
                self._make_smaller(error)
                optimizer.zero_grad(set_to_none=True)
        self._check_gradients()
        finite(loss, "the training loss", self.trained.steps + 1)
        self.update(optimizer, scheduler)
        if after is not None:
            after(self.trained.steps + 1)
        optimizer.zero_grad(set_to_none=True)
        return loss

    def update(self, optimizer: Any, scheduler: Any) -> None:
        """Clip the gradients and update the weights."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.asked.max_grad_norm or math.inf)
        if norm is not None and not norm.is_meta:
            self._gradients = (self.trained.steps + 1, norm)
        optimizer.step()
        scheduler.step()

    def _check_gradients(self) -> None:
        """Raises `DivergedError` if the gradients of the last step were not finite.

        Looked at only here, where something has been waited for already, so that a GPU does not wait once more a step.
        """
        if self._gradients is not None:
            (step, norm), self._gradients = self._gradients, None
            finite(norm.item(), "the norm of the gradients", step)

    def _make_smaller(self, error: BaseException) -> None:
        if self.micro_rows == 1:
            raise MemoryError("one row at a time does not fit in memory") from error
        self.micro_rows = math.ceil(self.micro_rows / 2)
        self.trained.notes.append(f"out of memory: micro-batch cut to {self.micro_rows}, same effective batch")
        device.empty_cache()

    def backward(self, rows: list[Encoded]) -> float:
        """Compute the gradients of the mean loss per target token of rows; return the loss."""
        tokens = sum(len(row.target) for row in rows)
        total = 0.0
        for start in range(0, len(rows), self.micro_rows):
            with device.autocast(self.low_precision):
                loss = summed_loss(self.adapted, rows[start : start + self.micro_rows]) / tokens
            loss.backward()
            # Meta tensors, on which a step is rehearsed, hold no values.
            total += 0.0 if loss.is_meta else float(loss.item())
        if self.adapted.penalty is not None:
            self.adapted.penalty().backward()
        return total

    @torch.no_grad()
    def loss(self, rows: Sequence[Encoded]) -> float:
        """Return the mean cross-entropy in nats per target token, without dropout."""
        self.adapted.model.eval()

        def batch_loss(batch: list[Encoded]) -> list[float]:
            with device.autocast(self.low_precision):
                return [summed_loss(self.adapted, batch).item()] + [0.0] * (len(batch) - 1)

        total: float = sum(in_batches(rows, 4 * self.micro_rows, batch_loss))
        return total / sum(len(row.target) for row in rows)

    def _state(self) -> State:
        named = self.adapted.model.named_parameters()
        return {name: p.detach().to("cpu", copy=True) for name, p in named if p.requires_grad}

    def _load(self, state: State) -> None:
        with torch.no_grad():
            for name, parameter in self.adapted.model.named_parameters():
                if name in state:
                    parameter.copy_(state[name])

    def _probe(self, rows: Sequence[Encoded]) -> Memory | None:
        """Make two untimed steps on the longest rows, and restore everything that they change.

        They warm the device up, and find out at once whether the longest rows fit. On a CPU they give the memory:
        following every tensor slows a step. A GPU's allocator counts by itself, over the training steps.
        """
        longest = longest_rows(rows, self.step_rows)
        before = self._state()
        with torch.random.fork_rng(), nullcontext() if device.has_gpu() else tracked(self.adapted.model) as tracker:
            # At no rate: what diverges is to be the training, not its measure.
            optimizer, scheduler = self.optimizer(2, rate=0.0)
            self.step(longest, optimizer, scheduler)
            if tracker is not None:
                # The step that counts is the second, as there are states from then on.
                tracker.mark(states(optimizer), "optimizer_states")
                tracker.restart()
            self.step(longest, optimizer, scheduler)
        self._load(before)
        self._gradients = None
        return None if tracker is None else tracker.memory

    @contextmanager
    def _gpu_peak(self, optimizer: Any) -> Iterator[None]:
        """On a GPU, raise the peak memory to that of the enclosed step, as counted by the allocator.

        The allocator does not say what bytes are for. Gradients count as large as what is trained, activations as the
        rest of the peak.
        """
        if not device.has_gpu():
            yield
            return
        with allocator_peak() as peak_bytes:
            yield
        peak = peak_bytes()
        self.trained.reserved_bytes = max(self.trained.reserved_bytes or 0, device.peak_reserved_bytes())
        if self.trained.memory is None or peak > self.trained.memory.total:
            model = self.adapted.model
            parts = (
                tensor_bytes((*model.parameters(), *model.buffers(), *quantization_constants(model))),
                tensor_bytes(self.parameters),
                tensor_bytes(states(optimizer)),
            )
            self.trained.memory = Memory(*parts, activations=max(0, peak - sum(parts)))


def total_steps(asked: Training, rows: int) -> int:
    """Return the number of optimiser steps of a training on `rows` rows."""
    if asked.max_steps > 0:
        return asked.max_steps
    step_rows = asked.per_device_train_batch_size * asked.gradient_accumulation_steps
    return max(1, math.ceil(asked.num_train_epochs * math.ceil(rows / step_rows)))


def warmup_steps(asked: Training, total: int) -> int:
    """Return the number of warm-up steps of `total` steps."""
    return int(asked.warmup_steps) if asked.warmup_steps >= 1 else math.ceil(asked.warmup_steps * total)


def sparing_norms_and_biases(model: Any, groups: Sequence[dict[str, Any]], decay: float) -> list[dict[str, Any]]:
    """Split each optimiser group: what decays, and norms and biases, which `transformers.Trainer` spares."""
    # Half a second to import, and few runs ask for it.
    from transformers import Trainer as LibraryTrainer

    decaying = set(LibraryTrainer.get_decay_parameter_names(cast("Any", None), model))
    spared = {id(parameter) for name, parameter in model.named_parameters() if name not in decaying}
    cut = []
    for group in groups:
        for weight_decay, is_spared in ((group.get("weight_decay", decay), False), (0.0, True)):
            parts = [parameter for parameter in group["params"] if (id(parameter) in spared) == is_spared]
            cut += [group | {"params": parts, "weight_decay": weight_decay}] if parts else []
    return cut


def validate_every(asked: Training, total: int) -> int:
    """Return the number of steps between two validations."""
    return max(1, round(asked.eval_steps * total) if asked.eval_steps < 1 else int(asked.eval_steps))


def longest_rows(rows: Sequence[Encoded], count: int) -> list[Encoded]:
    """Return the `count` longest rows, the longest last."""
    return sorted(rows, key=lambda row: len(row.prompt) + len(row.target))[-count:]


def _point(trained: Trained, seconds: float, train_loss: float, validation_loss: float) -> Point:
    return Point(
        step=trained.steps,
        tokens=trained.tokens,
        seconds=seconds,
        train_loss=train_loss,
        validation_loss=validation_loss,
    )


def summed_loss(adapted: Adapted, rows: Sequence[Encoded]) -> Tensor:
    """Return the cross-entropy summed over the target tokens of rows; only these positions get logits."""
    logits = model_family(adapted.network.config).target_logits(adapted, rows)
    targets = torch.tensor([token for row in rows for token in row.target], device=logits.device)
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
