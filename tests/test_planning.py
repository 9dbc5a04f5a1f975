"""What a plan says before a run is what the run then finds."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from conftest import SHARED
from peftbench.cli.plan import _left
from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec, Training
from peftbench.engine.base_model import Base
from peftbench.engine.checkpoint import save_checkpoint
from peftbench.engine.model_without_weights import FORMULAS
from peftbench.engine.peak_memory import Memory
from peftbench.engine.precision import Precision
from peftbench.engine.tokenization import Encoded, encode_examples
from peftbench.engine.train import Trainer, longest_rows
from peftbench.grid.expand import expand
from peftbench.launch import Options
from peftbench.launch.grid_run import prepare
from peftbench.methods import METHODS
from peftbench.models import find
from peftbench.profiling import is_large
from peftbench.profiling.cost_by_length import Profile, points, profile
from peftbench.profiling.devices import Device, find_device, known_devices
from peftbench.profiling.dry_run import Counts, Rehearsal
from peftbench.profiling.forecast import CellForecast, Forecast, forecast, longest
from peftbench.profiling.row_lengths import measured_lengths, row_lengths
from peftbench.profiling.speed_calibration import fit
from peftbench.results.store import Store
from peftbench.single_run import adapt
from peftbench.tasks import TASKS
from peftbench.tasks._splits import RowLimits, split
from peftbench.tuning import Search
from test_cli import call

MIRROR = SHARED / "data"

SMALL: dict[str, dict[str, Any]] = {
    "p-tuning": {"tokens": 8, "hidden": 32},
    "prompt-tuning": {"tokens": 8},
    "prefix-tuning": {"tokens": 8, "hidden": 32},
}
FIRST = "full lora bitfit prefix-tuning".split()
TEN = [*FIRST, *"ia3 adapter lntuning prompt-tuning p-tuning dora".split()]
ROOM = Device("a room", 10**12, False, (1e-12, 1e-6, 1e-12))


def grid(**changes: Any) -> list[RunSpec]:
    asked = {"models": ["pocket"], "methods": ["lora"], "tasks": ["pocket_topic"], "sizes": [32], "seeds": [0, 1]}
    return expand(asked | changes)


def spec(method: str, model: str = "pocket", **changes: Any) -> RunSpec:
    return grid(models=[model], methods=[{"use": method, **SMALL.get(method, {})}], **changes)[0]


@pytest.fixture(scope="module")
def bases() -> dict[tuple[str, Precision], Base]:
    asked: list[tuple[str, Precision]] = [("pocket", "fp32"), ("pocket", "bf16"), ("pocket-t5", "fp32")]
    return {(name, precision): Base(find(name), precision) for name, precision in asked}


def data(base: Base, count: int = 24) -> list[Encoded]:
    task = TASKS["pocket_topic"]
    return encode_examples(base.encoder(task.facts, 512), split(task, {}, count, 0, RowLimits(8, 8), root=None).train)


@pytest.mark.parametrize(
    ("method", "model", "precision"),
    [
        *((method, "pocket", "fp32") for method in FIRST),
        ("lora", "pocket-t5", "fp32"),
        ("lora", "pocket", "bf16"),
        *(
            pytest.param(method, "pocket", precision, marks=pytest.mark.slow)
            for method in TEN
            for precision in ("fp32", "bf16")
            if (method in FIRST) == (precision == "bf16") and (method, precision) != ("lora", "bf16")
        ),
        pytest.param("full", "pocket-t5", "fp32", marks=pytest.mark.slow),
    ],
)
def test_a_step_is_as_it_was_rehearsed(
    method: str, model: str, precision: Precision, bases: dict[tuple[str, Precision], Base], tmp_path: Path
) -> None:
    """Parameters and bytes of the adapter exactly, operations within 1 %, each part of the peak within 5 % of it."""
    base, asked = bases[model, precision], spec(method, model, train={"precision": precision})
    batch = longest_rows(data(base), 8)
    shape = (max(len(row.prompt) + len(row.target) for row in batch) - 2, 2)
    told = profile(asked, [shape])
    torch.manual_seed(0)
    adapted = adapt(base, METHODS[method], asked)
    trainer = Trainer(adapted, asked.train, 1e-4, precision, 0)
    found = trainer._probe(batch)
    optimizer, scheduler = trainer.optimizer(1)
    mapping = {op: inspect.unwrap(formula) for op, formula in FORMULAS.items() if "for_cpu" in str(op)}
    exact = [replace(row, prompt=[1] * shape[0], target=[1] * shape[1]) for row in batch]
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        trainer.step(exact, optimizer, scheduler)
    trained = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
    held = save_checkpoint(adapted, tmp_path / "kept")
    if adapted.remove is not None:
        adapted.remove()
    base.restore()
    assert told.trainable_parameters == trained
    assert told.adapter_bytes == held
    step = told.at(shape)
    assert step.counts.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert found is not None
    assert step.peak.total == pytest.approx(found.total, rel=0.05)
    for part in ("weights", "gradients", "optimizer_states", "activations"):
        assert getattr(step.peak, part) == pytest.approx(getattr(found, part), abs=0.05 * found.total)


@pytest.mark.slow
def test_lengths_between_those_rehearsed() -> None:
    # In bfloat16 attention is computed otherwise above a length.
    asked = spec("lora", train={"precision": "fp32"})
    told = profile(asked, [(20, 4), (50, 2), (100, 8), (150, 40), (250, 6), (400, 30)])
    assert len(told.shapes) == 4
    for shape in ((100, 8), (200, 20)):
        (exact,) = profile(asked, [shape]).rehearsals
        between = told.at(shape)
        assert between.counts.flops == pytest.approx(exact.counts.flops, rel=0.01)
        assert between.peak.total == pytest.approx(exact.peak.total, rel=0.05)


@given(st.lists(st.floats(0.1, 10), min_size=4, max_size=4), st.integers(10, 500), st.integers(1, 9))
def test_what_is_polynomial_is_found(factors: list[float], prompt: int, target: int) -> None:
    """A constant, the length, the target and the square of the length: told exactly from four points."""

    def at(shape: tuple[int, int]) -> Rehearsal:
        length = sum(shape)
        value = round(1e9 * float(np.dot(factors, [1, length / 512, shape[1] / 512, (length / 512) ** 2])))
        return Rehearsal(Memory(value, 0, 0, value), Memory(1, 2, 3, 4), Counts(value, 7, value))

    chosen = points([(10, 1), (500, 9), (200, 5), (90, 2), (300, 7)], 10**6)
    told = Profile(1, 1, 4, 4, Counts(1, 1, 1), 0, chosen, tuple(map(at, chosen)))
    found, expected = told.at((prompt, target)), at((prompt, target))
    assert found.counts == pytest.approx(expected.counts, rel=1e-6)
    assert found.passes.total == pytest.approx(expected.passes.total, rel=1e-6)
    assert found.update == expected.update


@pytest.mark.parametrize(
    ("method", "extra"),
    [("lora", 0.0), ("ia3", 0.0), ("lntuning", 0.0), ("bitfit", 0.0), ("full", 0.0), ("prompt-tuning", 1.56)],
)
def test_the_inputs_of_pscp_on_llama_3_8b(method: str, extra: float) -> None:
    """TFLOPs over the base's forward pass of 7.822, by the configuration alone; what merges exactly adds none."""
    (asked,) = grid(models=["llama-3-8b"], methods=[method], seeds=[0])
    told = profile(asked, [])
    assert told.extra_forward_flops_512 / 1e12 == pytest.approx(extra, abs=0.01)
    assert (told.forward.flops - told.extra_forward_flops_512) / 1e12 == pytest.approx(7.822, abs=0.02)


def test_a_profile_is_kept_for_the_same_question_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    (asked,) = grid(methods=["lora"], seeds=[0])
    first = profile(asked, [(20, 4)], bf16=False)
    (path,) = (tmp_path / "profiles").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("peftbench.profiling.cost_by_length.rehearse", lambda *_: pytest.fail("rehearsed again"))
        kept = profile(asked, [(20, 4)], bf16=False)
        assert kept == first
        assert kept.at((30, 4)) == first.at((30, 4))
    others = [
        (
            asked.model_copy(update={"method": asked.method.model_copy(update={"arguments": {"rank": 2}})}),
            (20, 4),
            False,
        ),
        (asked.model_copy(update={"train": Training(per_device_train_batch_size=2)}), (20, 4), False),
        (asked, (40, 4), False),
        (asked, (20, 4), True),
    ]
    for spec, shape, bf16 in others:
        assert profile(spec, [shape], bf16=bf16) != first
    path.write_text("{}")
    assert profile(asked, [(20, 4)], bf16=False) == first


def test_what_cannot_be_is_named_and_the_rest_goes_on() -> None:
    specs = grid(methods=["lora", "prefix-tuning"], train={"gradient_checkpointing": True})
    small = replace(ROOM, memory_bytes=30_000_000)
    cells = {cell.method: cell for cell in forecast(specs, ROOM).cells}
    assert cells["lora"].status == "fits"
    assert cells["prefix-tuning"].status == "refused"
    assert "refuses gradient checkpointing" in cells["prefix-tuning"].why
    told = forecast(specs, small)
    cells = {cell.method: cell for cell in told.cells}
    assert cells["lora"].status == "does not fit"
    assert "there are 0.0 GB" in cells["lora"].why
    assert cells["prefix-tuning"].status == "refused"
    assert told.runnable == []
    assert told.makespan == told.total("seconds") == 0
    # Two workers share the memory of a machine.
    need = next(iter(forecast(specs, ROOM).cells)).peak_memory_bytes
    assert need is not None
    both = replace(ROOM, memory_bytes=need + 1)
    assert [forecast(specs, both, workers=n).cells[0].status for n in (1, 2)] == ["fits", "does not fit"]


@pytest.mark.slow
def test_gradient_checkpointing_is_rehearsed_too() -> None:
    plain, saved = (
        profile(spec("lora", train={"gradient_checkpointing": on}), [(200, 4)]).rehearsals[0] for on in (False, True)
    )
    assert saved.peak.activations < 0.7 * plain.peak.activations
    assert saved.counts.flops > plain.counts.flops


def test_lower_precision_takes_less() -> None:
    full, half = (
        profile(spec("lora", train={"precision": kind}), [(200, 4)]).rehearsals[0] for kind in ("fp32", "bf16")
    )
    assert half.peak.weights < 0.6 * full.peak.weights
    assert half.peak.activations < full.peak.activations
    # The backward pass of fused attention computes the scores again.
    assert 0.95 * full.counts.flops < half.counts.flops <= full.counts.flops


def test_a_quantised_base_is_packed() -> None:
    pytest.importorskip("bitsandbytes")
    for quantise in ("nf4", "int8"):
        (asked,) = grid(models=[{"use": "pocket", "quantise": quantise}], seeds=[0], train={"precision": "fp32"})
        base = Base(find("pocket"), "fp32", quantise)
        adapted = adapt(base, METHODS["lora"], asked)
        found = Trainer(adapted, asked.train, 1e-4, "fp32", 0)._probe(longest_rows(data(base), 8))
        assert found is not None
        assert profile(asked, [(40, 2)]).rehearsals[0].peak.weights == pytest.approx(found.weights, rel=0.01)


def cell(seconds: float | None, seeds: int = 1, **changes: Any) -> CellForecast:
    return CellForecast("m", "lora", "t", "32", seeds, "fits", seconds=seconds, train_flops=5, **changes)


def test_totals_and_the_time_until_the_last_is_done() -> None:
    told = Forecast(ROOM, 2, (cell(4.0), cell(3.0, seeds=2), cell(1.0), replace(cell(9.0), status="refused")))
    # One worker: 4, then 1. The other: 3, then 3.
    assert told.makespan == 6
    assert told.total("seconds") == 11
    assert told.total("train_flops") == 20
    assert Forecast(ROOM, 1, told.cells).makespan == 11
    assert Forecast(ROOM, 2, (*told.cells, cell(None))).makespan is None


def test_what_is_left_is_its_share_of_the_time() -> None:
    short, long = (
        CellForecast("m", method, "t", "32", seeds=2, status="fits", seconds=s)
        for method, s in (("a", 60.0), ("b", 240.0))
    )
    told = Forecast(ROOM, 1, (short, long))

    def done(**counts: int) -> list[dict[str, Any]]:
        return [{"model": "m", "method": k, "task": "t", "size": "32", "runs": 2, "done": n} for k, n in counts.items()]

    assert _left(told, done(a=2, b=0)) == ": 8 min"
    assert _left(told, done(a=2, b=1)) == ": 4 min"
    assert _left(told, done(a=0, b=2)) == ": 2 min"
    assert _left(Forecast(ROOM, 1, (replace(short, seconds=None),)), done(a=1)) == ""


@given(st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3))
def test_a_machine_of_known_rates_is_found(scales: list[float]) -> None:
    rates = np.array(scales) * [1e-10, 1e-5, 1e-9]
    draw = np.random.default_rng(0)
    counts = [Counts(*map(int, draw.uniform(1e6, 1e9, 3) * [10, 1e-5, 1])) for _ in range(20)]
    found = fit(counts, [float(np.dot(rates, count)) for count in counts])
    for told, true in zip(np.dot(counts, found), np.dot(counts, rates), strict=True):
        assert told == pytest.approx(true, rel=1e-3)


def test_work_takes_as_long_as_the_device_says() -> None:
    assert ROOM.seconds(Counts(10**12, 10**6, 0)) == 2
    assert replace(ROOM, queued=True).seconds(Counts(10**12, 2 * 10**6, 0)) == 2
    assert replace(ROOM, rates=None).seconds(Counts(1, 1, 1)) is None
    assert all(each.source and each.watts and each.rates for each in known_devices().values())
    with pytest.raises(UserError, match="did you mean 'h100-80gb'"):
        find_device("h100-80g")


@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_rows_are_read_where_they_can_be_and_else_told() -> None:
    (asked,) = grid(tasks=["sst2"], models=["llama-3-8b"], seeds=[0], sizes=[200])
    read, told = row_lengths(asked, MIRROR), row_lengths(asked, None)
    assert sum(map(sum, told.train)) / len(told.train) == pytest.approx(sum(map(sum, read.train)) / 200, rel=0.05)
    assert not told.known
    assert told.training_rows == 200
    assert longest(asked, told)[0] == pytest.approx(longest(asked, read)[0], rel=0.2)
    (by_rule,) = grid(seeds=[0])
    assert row_lengths(by_rule, None).known
    # The largest of sizes is what there is, which the plan need not fetch.
    (whole,) = grid(tasks=["sst2"], models=["llama-3-8b"], seeds=[0], sizes=["all"])
    assert row_lengths(whole, None).training_rows == 67349


@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_lengths_are_those_of_the_mirror() -> None:
    from peftbench.profiling.row_lengths import measure_lengths

    assert measure_lengths(MIRROR) == measured_lengths()


def test_the_verb(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(
        'models = ["pocket"]\nmethods = ["none", "lora", { use = "prefix-tuning", tokens = 4, hidden = 8 }]\n'
        'tasks = ["pocket_topic"]\nsizes = [16]\nseeds = [0, 1]\n[train]\ngradient_checkpointing = true\n'
    )
    asked = ("plan", file, "--store", tmp_path / "none", "--device", "rtx-4090", "--html", tmp_path / "plan.html")
    told = call(*asked, "--json").json
    assert told["runs"] == told["missing"] == 6
    assert told["totals"]["runs"] == 4
    assert told["totals"]["makespan_seconds"] == pytest.approx(told["totals"]["seconds"])
    cells = {cell["method"]: cell for cell in told["cells"]}
    assert cells["lora"]["status"] == "fits"
    (told_apart,) = told["resolution"]
    assert (told_apart["methods"], told_apart["seeds"], told_apart["measured_spread"]) == (2, 2, False)
    assert told_apart["test_rows"] == [cells["lora"]["test_rows"]]
    assert told_apart["pair"] > 1.0
    assert cells["none"]["trainable_parameters"] == cells["none"]["train_flops"] == 0
    said = call(*asked).out
    assert "refused: prefix-tuning" in said
    assert "data sheet" in said
    assert f"of {told_apart['pair']:.1f} points is detected" in said
    assert f"1 point needs {told_apart['needed_rows']:,} test rows" in said
    page = (tmp_path / "plan.html").read_text()
    assert page.count("<tr>") == 2 + 3 + 3
    assert "refuses gradient checkpointing" in page
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_grid_says_what_will_not_fit_before_its_first_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small models are not asked; a large one is, before a worker is started."""

    def warned(specs: list[RunSpec]) -> list[str]:
        return list(prepare(Search(specs), Store(tmp_path), Options(workers=2)).warnings(lambda _done, _total: None))

    large = grid(models=["llama-3-8b"], methods=["full", "lora"], seeds=[0])
    assert not any(map(is_large, grid()))
    assert all(map(is_large, large))
    monkeypatch.setattr("peftbench.profiling.devices.here", lambda: replace(ROOM, name="small", memory_bytes=10**10))
    said = warned(large)
    assert [line.startswith("does not fit: ") for line in said] == [True, True]
    assert all("there are 5.0 GB for a run" in line for line in said)
    assert warned(grid()) == []
