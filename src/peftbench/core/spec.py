"""The nouns that go to disk: what a run was asked (`RunSpec`) and what it found (`RunResult`).

All are frozen and refuse unknown keys. A number that was not measured is `None`, never a stand-in. Units of measurement
stand in the names.
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
"""Raised when the shape of `RunResult` changes; `peftbench.results.store` upgrades older files."""

Status = Literal["ok", "out-of-memory", "diverged", "refused", "pruned", "timeout", "failed"]
"""How a run ended.

`refused`: method, model and task cannot be run together, and the error says why. `pruned`: a trial of a search that was
stopped early, as others were better after as many steps. `timeout`: stopped after its time limit. `failed`: an error.
"""
BAD: tuple[Status, ...] = ("failed", "timeout", "refused", "out-of-memory", "diverged")
"""Statuses of runs without a score, worst first."""
FAULTY: tuple[Status, ...] = ("failed", "timeout")
"""Those that are no result of the method: a command whose runs ended so does not exit with 0."""


class Noun(BaseModel):
    """A frozen record; an unknown key is an error."""

    # JSON has no number for an infinite loss; as the text "Infinity" it is read back as what it was.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


class Choice(Noun):
    """A unit by name, with the arguments that differ from its defaults and the unit's version.

    `called` is what tables call it, where its arguments tell more than its name. `place` is where the files of a
    method are on this machine; their content is among the arguments. `paths` names arguments of a task that say where
    files are on this machine; the version has their content. `tuned` names the arguments that a search has
    set: tables show them as such, so that what was tuned for each task is one method, and a run of it is not that of
    one to which the same values were given.
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
        """The arguments but for paths: what is asked for, wherever its files are."""
        return {name: value for name, value in self.arguments.items() if name not in self.paths}

    def __str__(self) -> str:
        if self.called:
            return self.called
        given = ", ".join(f"{key}={_plain(value)}" for key, value in sorted(self.shown.items()))
        return f"{self.name}({given})" if given else self.name


def _plain(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


RENAMED = {"warmup_ratio": "warmup_steps"}
"""Old names of training settings, which grids and results may still use: `transformers` 5 dropped `warmup_ratio`."""


def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Training settings by the names of today. Raises `ValueError` for one that cannot be read so."""
    for old, new in RENAMED.items():
        if old in given and new in given:
            raise ValueError(f"{old} is the old name of {new}: give one of them")
    shares = given.get("warmup_ratio")
    if 1 in (shares if isinstance(shares, list) else [shares]):
        raise ValueError("warmup_ratio has to be below 1")
    return {RENAMED.get(name, name): value for name, value in given.items()}


def _steps_or_share(steps: float) -> float:
    if steps > 1 and steps != int(steps):
        raise ValueError(f"{steps:g} is neither a whole number of steps nor a share below 1")
    return steps


class Training(Noun):
    """How a run trains. Names and meanings are those of `transformers.TrainingArguments` where both have the thing."""

    model_config = ConfigDict(allow_inf_nan=False)

    learning_rate: PositiveFloat | None = Field(None, description="none: the method's own default")
    num_train_epochs: PositiveFloat = 3.0
    max_steps: int = Field(-1, ge=-1, description="optimiser steps; over 0 it overrides the epochs")
    per_device_train_batch_size: PositiveInt = 8
    gradient_accumulation_steps: PositiveInt = 1
    warmup_steps: Annotated[NonNegativeFloat, AfterValidator(_steps_or_share)] = Field(
        0.06, description="a number of steps; under 1, a share of all steps"
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: NonNegativeFloat = Field(1.0, description="0: gradients are not clipped")
    eval_steps: float = Field(0.05, gt=0, description="validate every so many steps; under 1, as a share of all steps")
    early_stopping_patience: PositiveInt | None = Field(None, description="stop after so many validations without gain")
    max_length: PositiveInt = Field(512, description="tokens of prompt and target together")
    validation_rows: PositiveInt = Field(1000, description="at most so many, and at most a tenth of the training rows")
    gradient_checkpointing: bool = False
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the hardware is good at it"
    )

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        return renamed(given) if isinstance(given, dict) else given


class Evaluation(Noun):
    """How a run answers the test rows."""

    answer: Literal["auto", "generate", "rank"] = Field("auto", description="auto: rank where there are labels")
    test_rows: PositiveInt | None = Field(None, description="at most so many test rows, the same for every run")
    per_device_eval_batch_size: PositiveInt = 32
    merge_fidelity: bool = Field(False, description="also answer merged, where that may be inexact: see `Merged`")
    latency: bool = Field(False, description="also time each new token, beside the base: see `Latency`")
    retention: bool = Field(False, description="also measure the loss on general text, before and after")
    retention_text: str | None = Field(None, description="a text file for retention, in place of peftbench's own")
    retention_version: str = Field("", description="what is in that file; set when a grid is read")


class Trial(Noun):
    """Which run of a search for settings a run is, from 0.

    `ceilings`: at the validation after that step, the run is stopped if its lowest validation loss so far is above.
    `search` tells the searches of one method apart that a store may hold; it is no part of the question. A trial that
    two searches have in common is run for the first of them.
    """

    number: NonNegativeInt
    ceilings: tuple[tuple[PositiveInt, float], ...] = ()
    search: str = ""


def display_name(model: str) -> str:
    """What tables call a model of this name: an id of the Hub or an alias in full, of a path the last part."""
    on_hub = model.count("/") == 1 and not model.startswith((".", "~", "/"))
    return model if on_hub else Path(model).name


class RunSpec(Noun):
    """Everything asked of one run, and nothing about where it runs."""

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
        """What tables call the model."""
        return self.model.called or display_name(self.model.name)

    def __copy__(self) -> Self:
        """A copy has an id of its own, as `model_copy` changes what is asked."""
        copied = super().__copy__()
        copied.__dict__.pop("id", None)
        return copied

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the content, defaults left out: the same question is the same run.

        What a method or a file is called, where files are and which search a trial is of is no part of the question.
        """
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
            # A share was called so when the first runs got their ids.
            training["warmup_ratio"] = training.pop("warmup_steps")
        content = json.dumps(asked, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


class Costs(Noun):
    """What a run cost, in the units of `peftbench.core.costs`. `None`: not measured."""

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
    """Milliseconds from one new token to the next of greedy answers to so many prompts at once.

    `over_base`: the ratio to the untouched base, measured by turns. `merged` is missing where nothing can be merged.
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
        """Merged where that is exact, as one would use it."""
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
        (), description="what a report should say: repeated rows, missing labels, cut rows"
    )
    unwritable_targets: int = Field(0, description="of all rows: the model's tokenizer does not give them back")
    prompt_form: dict[str, Any] = Field({}, description="which chat template, and how a question is put to it")

    @property
    def truncated_share(self) -> float:
        """The share of rows that were cut to fit `max_length`."""
        return self.truncated_rows / max(1, self.train_rows + self.validation_rows + self.test_rows)


class Score(Noun):
    """A metric on the test rows and its standard error over them. No value: it could not be had, and `why`.

    `version` is that of the metric; `signature` says what of it depended on the answers.
    """

    value: float | None = None
    standard_error: float | None = None
    why: str | None = None
    version: int | str = 1
    signature: str | None = None


class Merging(Noun):
    """Whether merging the trained adapter into the base was proved exact, on some test rows of the run.

    Answers, latency, memory and extra FLOPs are those of the merged model if it is, else of the unmerged one.
    """

    exact: bool
    max_logit_difference: float | None = Field(None, description="merged to unmerged; none if merging is impossible")
    tolerance: float | None = Field(None, description="largest difference that rounding explains in this precision")
    why: str | None = Field(None, description="why it is not exact")


class Merged(Noun):
    """What a run would have found with its adapter merged into the base. Never what it is ranked by."""

    scores: dict[str, Score]
    max_logit_difference: float = Field(description="to the unmerged model, after the first test prompts, at most 32")


class RunResult(Noun):
    """What one run found. `scores` is by metric, on a 0 to 100 scale, the task's main metric first."""

    result_schema: int = SCHEMA
    id: str
    spec: RunSpec
    status: Status
    scores: dict[str, Score] = {}
    merging: Merging | None = Field(None, description="none: the method does not claim that it can be merged")
    merged: Merged | None = Field(None, description="measured where `merge_fidelity` is asked for")
    chance: float | None = Field(
        None, description="main metric of the best answer that is the same for all test rows; none where text is free"
    )
    row_scores: str | None = Field(
        None,
        description="main metric of each test row or group of rows, `nan` where it has none; of resamples, if it is no "
        "mean of them: their mean is the score, the standard error of their mean its standard error",
    )
    answers: dict[str, Any] = Field({}, description="labels, positive label, scale: what kept answers are scored by")
    invalid_share: float | None = Field(None, description="share of answers outside the labels, choices or scale")
    validation_loss: float | None = Field(None, description="at the best step, the one that was tested")
    best_step: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    costs: Costs = Costs()
    latency: tuple[Latency, ...] = Field((), description="for one row, then for the batch of evaluation")
    curve: tuple[Point, ...] = ()
    data: DataFacts | None = None
    base: dict[str, Any] = Field({}, description="precision, attention implementation, commit of the Hub, checksum")
    base_reloaded: bool = Field(False, description="the run changed the base, which was then loaded anew")
    machine: dict[str, Any] = {}
    versions: dict[str, str] = {}
    code: dict[str, dict[str, Any]] = Field({}, description="by package: commit, uncommitted changes, digest of source")
    settings: dict[str, Any] = Field({}, description="threads, deterministic flags, precision of products, variables")
    seeds: dict[str, int] = Field({}, description="of each random stream")
    notes: tuple[str, ...] = ()
    error: str | None = None
