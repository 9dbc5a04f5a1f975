"""The runs of a gate: those that a comparison needs, those that a store has, and the verdict on them."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftbench.core import provenance
from peftbench.core.registry import PLUGIN, UserError, error_line
from peftbench.core.spec import RunResult, RunSpec
from peftbench.gating.decision import MARGIN, GateVerdict, Paired, judge_candidate
from peftbench.grid.entry_parsing import Entry
from peftbench.grid.expand import expand
from peftbench.methods import METHODS
from peftbench.metrics import bounds
from peftbench.results.digests import RESULT
from peftbench.results.runs_table import arguments_text, row_scores
from peftbench.results.store import Store, read_result
from peftbench.stats.intervals import Run
from peftbench.studies._missing_cells import MissingCell
from peftbench.tasks import resolve

BASELINE: Entry = {
    "use": "lora",
    "alpha": 32,
    "dropout": 0.0,
    "modules": ["q", "k", "v", "o", "gate", "up", "down"],
    "learning_rate": 2e-3,
}
TASKS: tuple[Entry, ...] = ("pocket_choice", "pocket_topic")
"""Tasks of the pocket suite that are learned in few steps and have a small spread over seeds: see docs/gate.md."""
TRAIN: Mapping[str, Any] = {"num_train_epochs": 2, "eval_steps": 0.5, "validation_rows": 32}
EVAL: Mapping[str, Any] = {"test_rows": 400}
ENDED = ("ok", "diverged")
"""Final statuses; a run with another status is repeated, since its cause may be gone."""


@dataclass(frozen=True)
class GateDesign:
    """The design of a comparison. Entries are those of a grid; `train` and `eval` override the defaults."""

    candidate: Entry
    baseline: Entry = field(default_factory=lambda: BASELINE)
    model: Entry = "pocket"
    tasks: tuple[Entry, ...] = TASKS
    size: int | Literal["all"] = 256
    seeds: int = 5
    margin: float = MARGIN
    train: Mapping[str, Any] = field(default_factory=dict)
    eval: Mapping[str, Any] = field(default_factory=dict)

    def grid(self, method: Entry) -> dict[str, Any]:
        """Return the grid of one method. One that trains nothing has the same answers on every seed: it runs on one."""
        return {
            "name": "gate",
            "models": (self.model,),
            "methods": (method,),
            "tasks": self.tasks,
            "sizes": (self.size,),
            "seeds": tuple(range(self.seeds if _trains(method) else 1)),
            "train": {**TRAIN, **self.train},
            "eval": {**EVAL, **self.eval},
        }


@dataclass(frozen=True)
class Arm:
    """The runs of one method by task and seed. A method that trains nothing only has a run for the first seed."""

    specs: Mapping[str, Mapping[int, RunSpec]]

    @property
    def first(self) -> RunSpec:
        return next(self.runs())

    def runs(self) -> Iterator[RunSpec]:
        """Yield every run once."""
        return (spec for seeds in self.specs.values() for spec in seeds.values())

    def on(self, task: str, seed: int) -> RunSpec:
        seeds = self.specs[task]
        return seeds.get(seed) or next(iter(seeds.values()))


@dataclass(frozen=True)
class Arms:
    """The runs of candidate and baseline, and the seeds on which they are compared."""

    candidate: Arm
    baseline: Arm
    margin: float

    @property
    def both(self) -> tuple[Arm, Arm]:
        return self.candidate, self.baseline

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the method that has more."""
        return tuple(sorted({spec.seed for spec in self.runs()}))

    @property
    def names(self) -> tuple[str, str]:
        """Names of candidate and baseline: methods with arguments, and the training settings in which they differ."""
        ours, theirs = (dict(arm.first.train) for arm in self.both)
        apart = [key for key in ours if ours[key] != theirs[key]]
        told = [", ".join(f"{key} {settings[key]}" for key in apart) for settings in (ours, theirs)]
        return _named(self.candidate, told[0]), _named(self.baseline, told[1])

    @property
    def training(self) -> str:
        """Training settings that both share and that differ from the defaults."""
        ours, theirs = (arm.first.train.model_dump(mode="json", exclude_defaults=True) for arm in self.both)
        return arguments_text({key: value for key, value in ours.items() if theirs.get(key) == value})

    def runs(self) -> list[RunSpec]:
        """Return every run once, those of the baseline first."""
        return list({spec.id: spec for arm in (self.baseline, self.candidate) for spec in arm.runs()}.values())


def _named(arm: Arm, settings: str) -> str:
    method = str(arm.first.method)
    return f"{method} with {settings}" if settings and arm.first.train.learning_rate else method


def arms(design: GateDesign) -> Arms:
    """Return the runs of a gate. Raises `UserError` for unknown names, a sweep, or equal candidate and baseline."""
    candidate, baseline = (_arm(design, name) for name in ("candidate", "baseline"))
    if {spec.id for spec in candidate.runs()} == {spec.id for spec in baseline.runs()}:
        raise UserError(f"candidate and baseline are the same, {candidate.first.method}: give another with --baseline")
    return Arms(candidate, baseline, design.margin)


def _trains(method: Entry) -> bool:
    name = method if isinstance(method, str) else str(method.get("use"))
    family = name.partition(":")[0] in METHODS.families
    return family or name not in METHODS or METHODS[name].facts.trains


def _arm(design: GateDesign, name: Literal["candidate", "baseline"]) -> Arm:
    held: dict[str, dict[int, RunSpec]] = {}
    for spec in expand(design.grid(getattr(design, name))):
        seeds = held.setdefault(str(spec.task), {})
        if spec.seed in seeds:
            raise UserError(f"{name}: several runs on {spec.task}: a gate takes no sweep, give one value per setting")
        seeds[spec.seed] = spec
    return Arm(held)


def to_do(found: Arms, store: Store, again: bool = False) -> list[RunSpec]:
    """Return the runs without a `current` result in the store; with `again`, also all runs of the candidate."""
    anew = {spec.id for spec in found.candidate.runs()} if again else set()
    return [spec for spec in found.runs() if spec.id in anew or current(store, spec) is None]


def current(store: Store, spec: RunSpec) -> RunResult | None:
    """Return the result of a run that ended, made on this machine class with the present code and libraries, or `None`.

    A method under development keeps its name and version, so its old results could be mistaken for new ones.
    """
    try:
        result = read_result(store.folder(spec) / RESULT)
    except (OSError, ValueError):
        return None
    here = provenance.code()
    same = result.versions == provenance.versions() and all(
        result.code.get(name, {}).get("source") == here[name]["source"] for name in ("peftbench", *_plugins(spec))
    )
    return result if same and result.status in ENDED else None


def _plugins(spec: RunSpec) -> list[str]:
    """Return the names of the plugin files that define a run's method and task."""
    units = (METHODS[spec.method.name], resolve(spec.task.name, spec.task.arguments))
    modules = {unit.function.__module__ for unit in units}
    return [Path(str(sys.modules[name].__file__)).name for name in sorted(modules) if name.startswith(PLUGIN)]


def verdict(found: Arms, store: Store) -> GateVerdict:
    """Return the verdict on the results in the store."""
    held = {spec.id: _result(store, spec) for spec in found.runs()}
    paired, failed, gaps = [], [], []
    for task in found.baseline.specs:
        lacks, open_ = _missing(found, task, held)
        failed += lacks
        gaps += open_
        if not lacks and not open_:
            paired.append(_paired(found, task, held))
    return judge_candidate(paired, found.margin, failed, gaps)


def _result(store: Store, spec: RunSpec) -> RunResult | str:
    """Return a result, or the reason why there is none."""
    try:
        return read_result(store.folder(spec) / RESULT)
    except (OSError, ValueError) as error:
        return error_line(error)


Held = Mapping[str, RunResult | str]


def _missing(found: Arms, task: str, held: Held) -> tuple[list[MissingCell], list[MissingCell]]:
    """Return the cells of a task that only the candidate lacks, and those that the baseline lacks."""
    failed, gaps = [], []
    for seed in found.seeds:
        ours, theirs = (_why(held[arm.on(task, seed).id]) for arm in found.both)
        if theirs:
            gaps.append(MissingCell(task, seed, *theirs))
        elif ours:
            failed.append(MissingCell(task, seed, *ours))
    return failed, gaps


def _why(result: RunResult | str) -> tuple[str, str | None] | None:
    """Return why a run has no score, in the form of a missing cell, or `None` if it has one."""
    if isinstance(result, str):
        return "absent", result
    score = next(iter(result.scores.values()), None)
    if result.status != "ok":
        return result.status, (result.error or "").strip().partition("\n")[0] or None
    return None if score is not None and score.value is not None else ("no score", score.why if score else None)


def _paired(found: Arms, task: str, held: Held) -> Paired:
    """Return the runs of both methods on a task. Raises `UserError` if their test rows differ."""
    runs = [{seed: _ended(held[arm.on(task, seed).id]) for seed in found.seeds} for arm in found.both]
    data = {result.data.fingerprint for arm in runs for result in arm.values() if result.data}
    if len(data) > 1:
        raise UserError(f"task {task}: its data changed between the runs: give an empty store with --store")
    ours, theirs = ({seed: _run(result) for seed, result in arm.items()} for arm in runs)
    first = runs[1][found.seeds[0]]
    return Paired(task, next(iter(first.scores)), ours, theirs, first.chance)


def _ended(result: RunResult | str) -> RunResult:
    assert isinstance(result, RunResult)
    return result


def _run(result: RunResult) -> Run:
    """Return the score of a run in the main metric, with its error and row scores."""
    metric, score = next(iter(result.scores.items()))
    assert score.value is not None
    error = math.nan if score.standard_error is None else score.standard_error
    rows = row_scores(result.row_scores) if result.row_scores else None
    return Run(score.value, error, rows, bounds(metric))
