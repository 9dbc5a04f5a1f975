"""What only a GPU can show: `make gpu`. Without one every test is skipped and says so."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.core import device
from peftbench.core.spec import RunResult, RunSpec
from peftbench.engine import energy
from peftbench.engine import train as training
from peftbench.engine.tokenization import Encoded
from peftbench.grid.expand import expand
from peftbench.methods import Adapted
from peftbench.profiling.devices import find_device
from peftbench.profiling.forecast import forecast
from peftbench.single_run import Worker, run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not device.has_gpu(), reason="not run: no GPU")]

LORA = {"use": "lora", "dropout": 0.0}
"""The random numbers of a GPU are not those of a CPU."""
LOSS_TOLERANCE = 1e-3
MEMORY_FACTOR = 1.5
"""Kernels and the work space of matrix products, tens of megabytes, are not forecast (docs/measures.md)."""
BEYOND_ANY_GPU = 1 << 50
"""Bytes."""


def spec(method: Any = LORA, model: Any = "pocket", **train: Any) -> RunSpec:
    """A run in fp32 in which every step has all rows."""
    (made,) = expand(
        {
            "models": [model],
            "methods": [method],
            "tasks": ["pocket_topic"],
            "sizes": [64],
            "train": {
                "max_steps": 6,
                "per_device_train_batch_size": 64,
                "learning_rate": 1e-3,
                "warmup_steps": 0,
                "eval_steps": 1,
                "validation_rows": 6,
                "precision": "fp32",
            }
            | train,
            "eval": {"test_rows": 16},
        }
    )
    return made


def do(asked: RunSpec, worker: Worker, folder: Path) -> RunResult:
    return run(asked, worker, folder, lambda _event: None)[0]


def done(asked: RunSpec, worker: Worker, folder: Path) -> RunResult:
    result = do(asked, worker, folder)
    assert result.status == "ok", result.error
    return result


def losses(result: RunResult) -> list[float | None]:
    return [loss for point in result.curve for loss in (point.train_loss, point.validation_loss)]


def test_losses_are_those_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, worker = done(spec(), Worker(), tmp_path), Worker()
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    there = done(spec(), worker, tmp_path)
    assert worker.base is not None
    assert worker.base.model.device == torch.device("cpu")
    assert (here.costs.peak_memory_source, there.costs.peak_memory_source) == ("cuda-allocator", "tracked-tensors")
    assert len(losses(here)) == 2 * 6
    assert losses(here) == pytest.approx(losses(there), rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("method", [LORA, "full"], ids=["lora", "full"])
def test_the_peak_of_memory_is_near_its_forecast(method: Any, tmp_path: Path) -> None:
    costs = done(spec(method), Worker(), tmp_path).costs
    (cell,) = forecast([spec(method)], find_device()).cells
    assert costs.peak_memory_source == "cuda-allocator"
    assert cell.peak_memory_bytes
    assert costs.peak_memory_bytes
    assert 1 / MEMORY_FACTOR < costs.peak_memory_bytes / cell.peak_memory_bytes < MEMORY_FACTOR
    assert costs.peak_weights_bytes == pytest.approx(cell.peak_weights_bytes, rel=0.01)
    assert costs.peak_optimizer_states_bytes == pytest.approx(cell.peak_optimizer_states_bytes, rel=0.01)
    assert costs.peak_reserved_bytes
    assert costs.peak_reserved_bytes >= costs.peak_memory_bytes
    assert costs.eval_peak_memory_bytes


def test_energy_is_that_of_the_gpu(tmp_path: Path) -> None:
    if energy.counter() is None:
        pytest.skip("not run: NVML counts no energy here")
    costs = done(spec(max_steps=60, eval_steps=60), Worker(), tmp_path).costs
    assert costs.energy_source == "nvml"
    assert costs.train_energy_joules
    assert costs.train_energy_joules > 0


def test_a_base_of_four_bits_is_trained(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="not run: the extra `quantised` is not installed")
    result = done(spec({"use": "lora"}, {"use": "pocket", "quantise": "nf4"}), Worker(), tmp_path)
    assert result.base["quantised"] == "nf4"
    assert result.validation_loss is not None
    assert result.curve[0].validation_loss is not None
    assert result.validation_loss < result.curve[0].validation_loss
    assert not result.base_reloaded


def test_out_of_memory_is_a_result_and_the_next_run_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(_adapted: Adapted, _rows: Sequence[Encoded]) -> torch.Tensor:
        return torch.empty(BEYOND_ANY_GPU, dtype=torch.uint8, device=device.current_device())

    before, worker = done(spec(), Worker(), tmp_path), Worker()
    with monkeypatch.context() as patch:
        patch.setattr(training, "summed_loss", hungry)
        starved = do(spec(), worker, tmp_path)
    assert (starved.status, starved.error) == ("out-of-memory", "MemoryError: one row at a time does not fit in memory")
    assert [note for note in starved.notes if "micro-batch cut to 1," in note]
    assert not starved.base_reloaded
    assert not worker.broken
    after = done(spec(), worker, tmp_path)
    assert losses(after) == pytest.approx(losses(before), rel=LOSS_TOLERANCE)
    assert after.costs.peak_memory_bytes == pytest.approx(before.costs.peak_memory_bytes, rel=0.05)
