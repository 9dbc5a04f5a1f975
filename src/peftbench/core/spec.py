"""The records stored on disk: the specification of a run (`RunSpec`) and its result (`RunResult`).

All are frozen and reject unknown keys. A number that was not measured is `None`. Names include the unit of measurement.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from peftbench.core.device import MemorySource

SCHEMA = 2
"""Schema version, increased when `RunResult` changes; `peftbench.results.store` upgrades older files."""

Status = Literal["ok", "out-of-memory", "diverged", "refused", "pruned", "timeout", "failed"]
"""How a run ended.

`refused`: method, model and task cannot be combined; the error gives the reason. `pruned`: a trial of a search, stopped
early because others were better after the same number of steps. `timeout`: stopped at its time limit. `failed`: an
error.
"""
BAD: tuple[Status, ...] = ("failed", "timeout", "refused", "out-of-memory", "diverged")
"""Statuses of runs without a score, worst first."""
FAULTY: tuple[Status, ...] = ("failed", "timeout")
"""Statuses that are not a result of the method: a command with such runs has a nonzero exit code."""


class Noun(BaseModel):
    """A frozen record; an unknown key is an error."""

    # JSON has no infinite numbers; the text "Infinity" is read back as an infinite loss.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


class Choice(Noun):
    """A unit by name, with the arguments that differ from its defaults and the unit's version.

    `called` is the display name in tables, if it differs. `place` is the path of a method's files on this machine; a
    digest of their content is among the arguments. `paths` names the arguments of a task that are paths on this
    machine; the version includes a digest of the files. `tuned` names the arguments set by a search. Tables show their
    values as "tuned", so a method tuned for each task is one method, distinct from one with the same values in the
    grid.
    """

    name: str
    arguments: dict[str, Any] = {}
    version: int | str = 1
    called: str = ""
    place: str = ""
    paths: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()

    @property
    def shown(self) -> dict[str, Any]:
        """The arguments as tables show them."""
        return self.asked | dict.fromkeys(self.tuned, "tuned")

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments without paths."""
        return {name: value for name, value in self.arguments.items() if name not in self.paths}

    def __str__(self) -> str:
        if self.called:
            return self.called
        given = ", ".join(f"{key}={_plain(value)}" for key, value in sorted(self.shown.items()))
        return f"{self.name}({given})" if given else self.name


def _plain(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


RENAMED = {"warmup_ratio": "warmup_steps"}
"""Old names of training settings, accepted in grids and results: `transformers` 5 removed `warmup_ratio`."""


def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return training settings with current names. Raises `ValueError` if an old one cannot be converted."""
    for old, new in RENAMED.items():
        if old in given and new in given:
            raise ValueError(f"{old} is the old name of {new}: set only one of them")
    shares = given.get("warmup_ratio")
    if 1 in (shares if isinstance(shares, list) else [shares]):
        raise ValueError("warmup_ratio must be below 1")
    return {RENAMED.get(name, name): value for name, value in given.items()}


def _steps_or_share(steps: float) -> float:
    if steps > 1 and steps != int(steps):
        raise ValueError(f"{steps:g} is neither a whole number of steps nor a share below 1")
    return steps


class Training(Noun):
    """Training settings. Names shared with `transformers.TrainingArguments` have the same meaning."""

    model_config = ConfigDict(allow_inf_nan=False)

    learning_rate: PositiveFloat | None = Field(None, description="none: the method's own default")
    num_train_epochs: PositiveFloat = 3.0
    max_steps: int = Field(-1, ge=-1, description="optimiser steps; a positive number overrides the epochs")
    per_device_train_batch_size: PositiveInt = 8
    gradient_accumulation_steps: PositiveInt = 1
    warmup_steps: Annotated[NonNegativeFloat, AfterValidator(_steps_or_share)] = Field(
        0.06, description="a number of steps; below 1, a share of all steps"
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: NonNegativeFloat = Field(1.0, description="0: gradients are not clipped")
    eval_steps: float = Field(0.05, gt=0, description="steps between validations; below 1, a share of all steps")
    early_stopping_patience: PositiveInt | None = Field(
        None, description="validations without gain before training stops"
    )
    max_length: PositiveInt = Field(512, description="tokens of prompt and target together")
    validation_rows: PositiveInt = Field(1000, description="upper limit, besides a tenth of the training rows")
    gradient_checkpointing: bool = False
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 if the hardware has instructions for it"
    )

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        return renamed(given) if isinstance(given, dict) else given


class Evaluation(Noun):
    """Evaluation settings: how a run answers the test rows."""

    answer: Literal["auto", "generate", "rank"] = Field("auto", description="auto: rank if the task has labels")
    test_rows: PositiveInt | None = Field(None, description="limit of test rows, the same rows for every run")
    per_device_eval_batch_size: PositiveInt = 32
    merge_fidelity: bool = Field(False, description="also evaluate an inexactly merged model: see `Merged`")
    latency: bool = Field(False, description="also time each new token, compared with the base model: see `Latency`")
    retention: bool = Field(False, description="also measure the loss on general text before and after training")
    retention_text: str | None = Field(None, description="a text file for retention that replaces the default text")
    retention_version: str = Field("", description="digest of that file's content; set when a grid is read")


class Trial(Noun):
    """The trial of a search that a run is, numbered from 0.

    `ceilings` are pairs of a step and a loss: at the validation after the step, the run is stopped if its lowest
    validation loss so far is higher. `search` identifies the search among those of one method in a store; it is not
    part of the run id. A trial that two searches share is run for the first one.
    """

    number: NonNegativeInt
    ceilings: tuple[tuple[PositiveInt, float], ...] = ()
    search: str = ""


def display_name(model: str) -> str:
    """Return the display name of a model: a Hub id or an alias in full, the last part of a path."""
    on_hub = model.count("/") == 1 and not model.startswith((".", "~", "/"))
    return model if on_hub else Path(model).name


class RunSpec(Noun):
    """The full specification of one run, independent of the machine."""

    model: Choice
    method: Choice
    task: Choice
    size: PositiveInt | Literal["all"]
    seed: NonNegativeInt
    train: Training = Training()
    eval: Evaluation = Evaluation()
    trial: Trial | None = Field(None, description="a run of a search; never on a leaderboard")

    @property
    def model_name(self) -> str:
        """The display name of the model."""
        return self.model.called or display_name(self.model.name)

    def __copy__(self) -> Self:
        """Copy without the cached id, because `model_copy` may change the specification."""
        copied = super().__copy__()
        copied.__dict__.pop("id", None)
        copied.__dict__.pop("id_parts", None)
        return copied

    def with_seed(self, seed: int) -> Self:
        """Return the same run with another seed. Its id is computed from the parts that both have."""
        other = self.model_copy(update={"seed": seed})
        other.__dict__["id_parts"] = self.id_parts | {"seed": str(seed)}
        return other

    @cached_property
    def id(self) -> str:
        """The run id: twelve hexadecimal digits of the SHA-256 of the content without defaults, as JSON."""
        content = ", ".join(f'"{name}": {part}' for name, part in sorted(self.id_parts.items()))
        return hashlib.sha256(f"{{{content}}}".encode()).hexdigest()[:12]

    @cached_property
    def id_parts(self) -> dict[str, str]:
        """The fields that the id is computed from, as JSON: no display names, paths, or search of a trial."""
        task = {"paths": True} | ({"called": True, "arguments": set(self.task.paths)} if self.task.paths else {})
        unasked: Any = {
            "method": {"called", "place"},
            "task": task,
            "eval": {"retention_text"},
            "trial": {"search"},
        }
        asked = self.model_dump(mode="json", exclude_defaults=True, exclude=unasked)
        training = asked.get("train", {})
        if training.get("warmup_steps", 1) < 1:
            # Ids of the first runs were computed with this name for a share.
            training["warmup_ratio"] = training.pop("warmup_steps")
        return {name: json.dumps(part, sort_keys=True) for name, part in asked.items()}


class Costs(Noun):
    """Costs of a run, in the units of `peftbench.core.costs`. `None`: not measured."""

    trainable_parameters: int | None = None
    total_parameters: int | None = None
    forward_flops_512: int | None = None
    extra_forward_flops_512: int | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    peak_weights_bytes: int | None = None
    peak_gradients_bytes: int | None = None
    peak_optimizer_states_bytes: int | None = None
    peak_activations_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_memory_source: MemorySource | None = None
    validation_seconds: float | None = None
    eval_seconds: float | None = None
    eval_peak_memory_bytes: int | None = None
    train_energy_joules: float | None = None
    eval_energy_joules: float | None = None
    energy_source: Literal["nvml", "rapl"] | None = None
    load_seconds: float | None = None
    tokenize_seconds: float | None = None
    adapter_bytes: int | None = None
    base_text_loss: float | None = None
    retention_loss_change: float | None = None


class Latency(Noun):
    """Milliseconds between new tokens in greedy decoding of `rows` prompts at once.

    `over_base` is the ratio to the base model, measured alternately. `merged` is `None` if the adapter was not merged.
    """

    rows: PositiveInt
    base_median_ms: float
    base_p95_ms: float
    unmerged_median_ms: float
    unmerged_p95_ms: float
    unmerged_over_base: float
    merged_median_ms: float | None = None
    merged_p95_ms: float | None = None
    merged_over_base: float | None = None

    @property
    def median_ms(self) -> float:
        """The merged model's median if it was measured, else the unmerged model's."""
        return self.unmerged_median_ms if self.merged_median_ms is None else self.merged_median_ms


class Point(Noun):
    """One point of a learning curve."""

    step: int
    tokens: int
    seconds: float
    train_loss: float | None = None
    validation_loss: float


class DataFacts(Noun):
    """Which rows were used."""

    source: str
    revision: str | None = None
    fingerprint: str
    train_rows: int
    validation_rows: int
    test_rows: int
    truncated_rows: int = 0
    remarks: tuple[str, ...] = Field(
        (), description="problems to report: repeated rows, missing labels, truncated rows"
    )
    unwritable_targets: int = Field(0, description="targets among all rows that the model's tokenizer cannot reproduce")
    prompt_form: dict[str, Any] = Field({}, description="the chat template, and how questions are passed to it")

    @property
    def truncated_share(self) -> float:
        """The share of rows truncated to `max_length`."""
        return self.truncated_rows / max(1, self.train_rows + self.validation_rows + self.test_rows)


class Score(Noun):
    """A metric on the test rows and its standard error over them. If `value` is `None`, `why` gives the reason.

    `version` is the version of the metric; `signature` contains its settings that depend on the answers.
    """

    value: float | None = None
    standard_error: float | None = None
    why: str | None = None
    version: int | str = 1
    signature: str | None = None


class Merging(Noun):
    """Whether merging the trained adapter into the base model was exact on some test rows of the run.

    Answers, latency, memory and extra FLOPs are those of the merged model if it was, else of the unmerged one.
    """

    exact: bool
    max_logit_difference: float | None = Field(
        None, description="merged versus unmerged; none if merging is impossible"
    )
    tolerance: float | None = Field(None, description="largest difference explained by rounding in this precision")
    why: str | None = Field(None, description="why it is not exact")


class Merged(Noun):
    """Scores of a run with its adapter merged into the base model. They are not used for ranking."""

    scores: dict[str, Score]
    max_logit_difference: float = Field(description="from the unmerged model, after at most 32 test prompts")


class RunResult(Noun):
    """The result of one run. `scores` is by metric, on a scale from 0 to 100, with the task's main metric first."""

    result_schema: int = SCHEMA
    id: str
    spec: RunSpec
    status: Status
    scores: dict[str, Score] = {}
    merging: Merging | None = Field(None, description="none: the method does not declare exact merging")
    merged: Merged | None = Field(None, description="measured if `merge_fidelity` is set")
    chance: float | None = Field(None, description="main metric of the best constant answer; none for free text")
    row_scores: str | None = Field(
        None,
        description="main metric of each test row or group of rows, `nan` if it has none: their mean is the score, and "
        "its standard error that of the score; of resamples, for a metric that is not a mean of rows",
    )
    answers: dict[str, Any] = Field({}, description="labels, positive label, scale: used to score the stored answers")
    invalid_share: float | None = Field(None, description="share of answers outside the labels, choices or scale")
    validation_loss: float | None = Field(None, description="at the best step, whose weights were tested")
    best_step: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    costs: Costs = Costs()
    latency: tuple[Latency, ...] = Field((), description="for one row, then for the evaluation batch size")
    curve: tuple[Point, ...] = ()
    data: DataFacts | None = None
    base: dict[str, Any] = Field({}, description="precision, attention implementation, commit of the Hub, checksum")
    base_reloaded: bool = Field(False, description="the run changed the base model, which was then reloaded")
    machine: dict[str, Any] = {}
    versions: dict[str, str] = {}
    code: dict[str, dict[str, Any]] = Field({}, description="by package: commit, uncommitted changes, digest of source")
    settings: dict[str, Any] = Field({}, description="threads, deterministic flags, precision of products, variables")
    seeds: dict[str, int] = Field({}, description="of each random stream")
    notes: tuple[str, ...] = ()
    error: str | None = None
