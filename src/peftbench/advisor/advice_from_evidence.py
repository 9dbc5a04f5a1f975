"""The answer of the advisor: evidence from a store or from published results, ranked methods, starting settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftbench.advisor import inputs
from peftbench.advisor.evidence_similarity import EvidenceCell, evidence_cells
from peftbench.advisor.inputs import Asked, StartingSettings
from peftbench.advisor.recommend import Advice, Question, known_methods, recommend
from peftbench.advisor.score_prediction import learn
from peftbench.core import provenance
from peftbench.core.registry import did_you_mean
from peftbench.results import published as published_figures
from peftbench.results.store import Store
from peftbench.studies._pscp_weights import WeightSet, weight_set, weight_set_names

ROUNDS = 3
"""Maximum number of rounds of cost forecasts while no method is known to fit."""


@dataclass(frozen=True)
class Evidence:
    """The cells that advice is based on. `measured` or `published` is empty if not requested or not available.

    `fell_back`: published results are used because nothing was measured. `damaged`: unreadable files, with reasons.
    """

    measured: tuple[EvidenceCell, ...] = ()
    published: tuple[EvidenceCell, ...] = ()
    fell_back: bool = False
    damaged: Mapping[Path, str] = field(default_factory=dict)

    def items(self) -> list[tuple[bool, tuple[EvidenceCell, ...]]]:
        """Return pairs of whether the cells are published, and the cells, for each kind that is not empty."""
        return [(kind, cells) for kind, cells in ((False, self.measured), (True, self.published)) if cells]


@dataclass(frozen=True)
class Answer:
    """Advice from one kind of evidence.

    `starts`: starting settings by method. `remarks`: what is unknown about costs.
    """

    advice: Advice
    starts: Mapping[str, StartingSettings]
    remarks: tuple[str, ...]

    @property
    def entries(self) -> dict[str, Any]:
        """Grid entries by method."""
        return {label: start.entry for label, start in self.starts.items()}


def preferred(prefer: str) -> str | WeightSet:
    """Return a ranking criterion: one of `PREFERENCES`, or a weight set of PSCP. Raises `UnknownNameError`."""
    from peftbench.advisor.recommend import PREFERENCES

    if prefer in PREFERENCES:
        return prefer
    if prefer in weight_set_names() or prefer.endswith(".toml"):
        return weight_set(prefer)
    raise did_you_mean("preference", prefer, [*PREFERENCES, *weight_set_names()])


def evidence(store: Store, published: bool = False) -> Evidence:
    """Return the measured cells of a store, and published cells if requested or if the store has none."""
    table = store.table()
    damaged: dict[Path, str] = dict(store.damaged)
    measured = evidence_cells(table, inputs.known_facts(table, store)) if len(table) else ()
    if measured and not published:
        return Evidence(measured, damaged=damaged)
    bundled = published_figures.gather(published_figures.bundled())
    figures, unreadable = published_figures.kept_published(store.root)
    rows = dict.fromkeys([*figures, *(row for each in bundled.rows.values() for row in each)])
    frame = inputs.with_unlike_reasons(inputs.aliases(published_figures.published_frame(rows)))
    others = evidence_cells(frame, inputs.known_facts(frame, store), published=True)
    return Evidence(measured, others, not published, damaged | unreadable)


def answer(
    asked: Asked,
    question: Question,
    cells: tuple[EvidenceCell, ...],
    store: Store,
    *,
    published: bool,
    device: str = "here",
    data: Path | None = None,
    top: int = 10,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Answer:
    """Return the advice from some cells, with starting settings.

    Costs are forecast for `top` methods at a time, the best first, until one is known to fit, in at most `ROUNDS`
    rounds. `progress` is called with the numbers of completed forecasts and of all forecasts of a round.
    """
    model, here = learn(cells), device == "here"
    order = known_methods(model, question.place)
    known = inputs.latency_by_method(store.table(), question.place.model, provenance.machine_class()) if here else {}
    starts: dict[str, StartingSettings] = {}
    costs: dict[str, Any] = {}
    full: Any = "the costs of full fine-tuning are unknown"
    while True:
        settings = inputs.nearest_settings(model, question.place, order[len(costs) : len(costs) + top])
        some = {label: inputs.starting_settings(asked, row, store) for label, row in settings.items()}
        starts |= some
        costs |= inputs.predict(some, device, data, known, progress)
        like = next((start.spec for start in starts.values() if start.spec), None)
        if isinstance(question.prefer, WeightSet) and question.prefer.reference == "full" and like:
            full = inputs.full_costs(like, device, data)
        found = recommend(model, question, costs, published, full)
        if found.ranked or len(costs) >= min(len(order), ROUNDS * top):
            return Answer(found, starts, tuple(_remarks(asked, question, found, device)))


def _remarks(asked: Asked, question: Question, found: Advice, device: str) -> list[str]:
    """Return what is unknown about the costs."""
    remarks = []
    if asked.stands_in:
        remarks.append(f"the length of your rows: costs are for rows like those of {asked.task}")
    known = [option.costs for option in found.options]
    if not any("train_seconds" in costs and costs["train_seconds"] for costs in known):
        remarks.append("times on this machine: measure it with `peftbench calibrate`, or name a --device")
    elif device != "here":
        remarks.append("exact times: they are from the data sheet, accurate to about a factor of two")
    if "latency_ms" in question.limits:
        remarks.append("latency of methods without a measured run of this model on this machine: it is not forecast")
    return remarks
