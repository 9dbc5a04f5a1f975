"""Equal-budget tuning: every method gets the same number of trials; the best by validation loss is run on all seeds.

A trial consists of ordinary runs, one per tuning seed. The results in a store are the only state of a search: the next
trial is computed from them. So an interrupted search resumes, and a search with more trials reuses the existing ones.
"""

import hashlib
import json
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from peftbench.core.search_space import Range, Space, Tune
from peftbench.core.spec import BAD, FAULTY, RunResult, RunSpec, Trial
from peftbench.grid.expand import Grid, load_grid, searchable_cells, settled

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP = 4
"""Number of random trials before the sampler uses results, and of finished trials before one may be stopped early."""

BADLY = (*BAD, "pruned")
Settings = dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """A finished trial: its settings, and a result for each tuning seed."""

    settings: Settings
    results: tuple[RunResult, ...]

    @property
    def status(self) -> str:
        """Status of the trial: `ok` only if all seeds ended so."""
        ended = {result.status for result in self.results}
        return next((status for status in BADLY if status in ended), "ok")

    @property
    def loss(self) -> float | None:
        """Mean validation loss over the seeds; `None` unless all seeds ended well."""
        losses = [result.validation_loss for result in self.results if _ended_well(result)]
        return fmean(loss for loss in losses if loss is not None) if len(losses) == len(self.results) else None

    @property
    def curve(self) -> dict[int, float]:
        """Mean validation loss by step, for steps that all seeds have."""
        curves = [{point.step: point.validation_loss for point in result.curve} for result in self.results]
        return {step: fmean(curve[step] for curve in curves) for step in sorted(set.intersection(*map(set, curves)))}


Past = Sequence[Tried]
"""The finished trials of a search."""


@dataclass(frozen=True)
class SettingSearch:
    """A search for the settings of one method on one task, model and train size.

    `template` is a run with the first tuning seed and the middle of each range. The best settings are run on `seeds`.
    """

    template: RunSpec
    space: Space
    tune: Tune
    seeds: tuple[int, ...]
    _known: dict[str, Settings] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        spec = self.template
        return f"{spec.method} on {spec.task} ({spec.model_name}, {spec.size} rows)"

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that identify the search, independent of method, task and number of trials."""
        spec = self.template
        settings = [held.model_dump(mode="json", exclude_defaults=True) for held in (spec.train, spec.eval)]
        text = json.dumps([settings, [span.model_dump_json() for span in self.space], self.tune.seeds, self.tune.prune])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def total(self) -> int:
        """Number of its runs."""
        return self.tune.trials * len(self.tune.seeds) + len(self.seeds)

    def past(self, results: Mapping[str, RunResult]) -> list[Tried]:
        """Return its finished trials, up to the first without a result."""
        past: list[Tried] = []
        while len(past) < self.tune.trials:
            asked = self.trial(past)
            found = tuple(results[spec.id] for spec in asked if spec.id in results)
            if len(found) < len(asked):
                break
            past.append(Tried(self._settings(past), found))
        return past

    def trial(self, past: Past) -> list[RunSpec]:
        """Return the runs of the trial that follows `past`, one per tuning seed."""
        spec, found = settled(self.template, self._settings(past)), []
        for i, seed in enumerate(self.tune.seeds):
            ceilings = ceilings_after([one.results[i] for one in past]) if self.tune.prune else ()
            trial = Trial(number=len(past), ceilings=ceilings, search=self.digest)
            found.append(spec.model_copy(update={"seed": seed, "trial": trial}))
        return found

    def asked(self, results: Mapping[str, RunResult]) -> list[RunSpec]:
        """Return the runs that the results determine: trials up to the next one, or all and the final runs."""
        past = self.past(results)
        trials = [result.spec for one in past for result in one.results]
        if len(past) < self.tune.trials:
            return [*trials, *self.trial(past)]
        best = winner(past)
        return trials if best is None else [*trials, *self._finals(settled(self.template, best))]

    def stand_ins(self) -> list[RunSpec]:
        """Return as many runs as the search will have, with the middle of each range, for forecasts of cost."""
        trials = [
            self.template.model_copy(update={"seed": seed, "trial": Trial(number=number)})
            for number in range(self.tune.trials)
            for seed in self.tune.seeds
        ]
        return [*trials, *self._finals(self.template)]

    def fruitless(self, results: Mapping[str, RunResult]) -> bool:
        """Return True if all trials are finished and none ended well, so there are no final runs."""
        past = self.past(results)
        return len(past) == self.tune.trials and winner(past) is None

    def _finals(self, spec: RunSpec) -> list[RunSpec]:
        return [spec.model_copy(update={"seed": seed}) for seed in self.seeds]

    def _settings(self, past: Past) -> Settings:
        """Return the settings of the next trial: first the defaults of the method, then what the sampler suggests."""
        if not past:
            return {span.name: span.first for span in self.space}
        told = json.dumps([(r.id, r.status, r.validation_loss) for one in past for r in one.results])
        if told not in self._known:
            self._known[told] = suggest(self.space, past, self._seed(len(past)))
        return self._known[told]

    def _seed(self, number: int) -> int:
        space = [span.model_dump_json() for span in self.space]
        text = json.dumps([self.template.id, space, number])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def winner(past: Past) -> Settings | None:
    """Return the settings of the trial with the lowest validation loss; the first one if several are equal."""
    good = [(one.loss, i) for i, one in enumerate(past) if one.loss is not None]
    return past[min(good)[1]].settings if good else None


def _ended_well(result: RunResult) -> bool:
    return result.status == "ok" and result.validation_loss is not None


def ceilings_after(results: Iterable[RunResult]) -> tuple[tuple[int, float], ...]:
    """Return the median validation loss of finished results by step; nothing if there are fewer than `STARTUP`.

    `results` are earlier trials with one seed. A run is stopped if its lowest loss so far is above the value: the
    median stopping rule (Golovin et al. 2017), as `optuna.pruners.MedianPruner` has it.
    """
    curves = [
        {point.step: point.validation_loss for point in result.curve} for result in results if _ended_well(result)
    ]
    if len(curves) < STARTUP:
        return ()
    steps = sorted(set(chain.from_iterable(curves)))
    return tuple((step, median(curve[step] for curve in curves if step in curve)) for step in steps)


def suggest(space: Space, past: Past, seed: int) -> Settings:
    """Return the settings that Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) tries next."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spans = {span.name: _distribution(span) for span in space}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed))
    study.add_trials([_told(one, space, spans) for one in past])
    found = study.ask(spans).params
    return {span.name: _value(span, found[span.name]) for span in space}


def _distribution(span: Range) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if span.among:
        # By place, as a value may be a list.
        return CategoricalDistribution(tuple(range(len(span.among))))
    if span.whole:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


def _value(span: Range, found: Any) -> Any:
    if span.among:
        return span.among[found]
    return found if span.whole else span.rounded(found)


def _told(tried: Tried, space: Space, spans: "dict[str, BaseDistribution]") -> "FrozenTrial":
    """Return a trial in the form of Optuna.

    A trial that diverged or ran out of memory is reported as pruned before its first step, which is the worst outcome.
    A failed trial would be ignored, and the sampler would try the same region again.
    """
    from optuna.trial import TrialState, create_trial

    places = {span.name: span.among.index(tried.settings[span.name]) for span in space if span.among}
    states: dict[str, TrialState] = {"ok": TrialState.COMPLETE, **dict.fromkeys(FAULTY, TrialState.FAIL)}
    return create_trial(
        state=states.get(tried.status, TrialState.PRUNED),
        value=tried.loss if tried.status == "ok" else None,
        params=tried.settings | places,
        distributions=spans,
        intermediate_values=tried.curve if tried.status in ("ok", "pruned") else {},
    )


@dataclass
class Search:
    """All runs of a grid: plain ones, and those of searches, which depend on the existing results."""

    plain: Sequence[RunSpec]
    studies: Sequence[SettingSearch] = ()
    results: MutableMapping[str, RunResult] = field(default_factory=dict)
    _given: set[str] = field(default_factory=set)
    _studies: dict[str, list[SettingSearch]] = field(default_factory=dict)

    def start_from(self, results: Mapping[str, RunResult]) -> None:
        """Use these results, by run id, as the existing ones. They may be read lazily and are not changed."""
        # Writes go to the first map alone.
        self.results = ChainMap({}, results)  # type: ignore[arg-type]

    @property
    def total(self) -> int:
        """Number of runs if every search finds settings."""
        return len(self.plain) + sum(study.total for study in self.studies)

    def asked(self) -> list[RunSpec]:
        """Return the runs that the results determine, each once."""
        return list({spec.id: spec for spec in chain(self.plain, *map(self._of, self.studies))}.values())

    def stand_ins(self) -> list[RunSpec]:
        """Return as many runs as there will be, with the middle of each range."""
        return [*self.plain, *chain.from_iterable(study.stand_ins() for study in self.studies)]

    def whole(self) -> list[RunSpec]:
        """Return the determined runs, and stand-ins for the others."""
        found = list(self.plain)
        for study in self.studies:
            known = study.asked(self.results)
            found += known if study.fruitless(self.results) else [*known, *study.stand_ins()[len(known) :]]
        return found

    def missing(self) -> list[RunSpec]:
        """Return the runs that can start now."""
        return self._new(self.asked())

    def after(self, result: RunResult) -> list[RunSpec]:
        """Return the runs that can start because of this result."""
        self.results[result.id] = result
        return self._new(chain.from_iterable(map(self._of, self._studies.get(result.id, ()))))

    def fruitless(self) -> list[str]:
        """Return the searches in which every trial ended badly, as text."""
        return [str(study) for study in self.studies if study.fruitless(self.results)]

    def _of(self, study: SettingSearch) -> list[RunSpec]:
        specs = study.asked(self.results)
        for spec in specs:
            if spec.trial is not None and study not in (owners := self._studies.setdefault(spec.id, [])):
                owners.append(study)
        return specs

    def _new(self, specs: Iterable[RunSpec]) -> list[RunSpec]:
        new = [spec for spec in specs if spec.id not in self.results and spec.id not in self._given]
        self._given |= {spec.id for spec in new}
        return new


def search(
    source: "Grid | Mapping[str, Any] | str | Path",
    results: Mapping[str, RunResult],
    models: Sequence[str] = (),
    limit: int | None = None,
    size: str | None = None,
) -> Search:
    """Return the runs of a grid, given results by run id. Arguments and errors are those of `grid.expand.expand`."""
    grid = load_grid(source, size)
    plain: list[RunSpec] = []
    seeds: dict[tuple[str, Space], list[int]] = {}
    templates: dict[tuple[str, Space], RunSpec] = {}
    for spec, space in searchable_cells(grid, models, limit):
        if grid.tune is None or not space:
            plain.append(spec)
            continue
        template = spec.model_copy(update={"seed": grid.tune.seeds[0]})
        seeds.setdefault((template.id, space), []).append(spec.seed)
        templates[template.id, space] = template
    studies = [
        SettingSearch(template, key[1], grid.tune, tuple(seeds[key]))
        for key, template in templates.items()
        if grid.tune
    ]
    asked = Search(plain, studies)
    asked.start_from(results)
    return asked
