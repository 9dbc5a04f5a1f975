"""What the one module about accelerators says where there is no GPU, and that no other asks."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peftbench.core import device, provenance
from peftbench.launch.worker_process import worker_environment
from peftbench.profiling.devices import find_device

SOURCE = Path(device.__file__).parents[1]
ASKING = (
    *(
        "torch.cuda",
        "torch import cuda",
        "torch.mps",
        "torch.cpu",
        "torch.accelerator",
        "OutOfMemoryError",
        "AcceleratorError",
    ),
    *("torch.autocast(", "should_reduce_batch_size", "max_memory_", "CUDA_VISIBLE_DEVICES", "nvidia-smi"),
)
ANSWERING = {
    "core/device.py": ASKING,
    "launch/worker_process.py": ("CUDA_VISIBLE_DEVICES",),
    "launch/worker.py": ("CUDA_VISIBLE_DEVICES",),
}
"""The module itself; what sets the variable for a worker, and what advises to set it."""


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_other_file_asks_about_accelerators(path: Path) -> None:
    text, allowed = path.read_text(), ANSWERING.get(path.relative_to(SOURCE).as_posix(), ())
    assert [word for word in ASKING if word in text and word not in allowed] == []


@pytest.mark.usefixtures("without_gpu")
def test_without_a_gpu_it_is_the_cpu() -> None:
    assert not device.has_gpu()
    assert device.current_device() == torch.device("cpu")
    assert device.gpus() == ()
    assert device.memory_source() == "tracked-tensors"
    device.synchronize()
    device.empty_cache()


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("ask", [device.reset_peak_memory, device.peak_memory_bytes, device.peak_reserved_bytes])
def test_a_cpu_has_no_allocator_that_counts(ask: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="no GPU"):
        ask()


@pytest.mark.usefixtures("without_gpu")
def test_products_are_cast_only_where_that_is_enabled() -> None:
    matrix = torch.ones(2, 2)
    for enabled, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with device.autocast(enabled):
            assert (matrix @ matrix).dtype == dtype


def test_a_gpu_is_told_by_what_torch_knows_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = SimpleNamespace(name="A GPU", total_memory=80, uuid="1234")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _number: known)
    assert device.current_device().type == "cuda"
    assert device.gpus() == (device.Gpu("A GPU", 80),) * 2
    assert device.gpu_uuid() == "GPU-1234"
    assert device.memory_source() == "cuda-allocator"
    assert not device.supports_bf16(), "emulated is not supported"
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 8)
    assert (device.peak_memory_bytes(), device.peak_reserved_bytes()) == (7, 8)


@pytest.mark.parametrize("bf16", [True, False])
def test_a_plan_for_here_is_for_its_gpu(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = provenance.machine_facts() | {"gpus": ["A GPU"], "gpu_memory_bytes": [80]}
    monkeypatch.setattr(provenance, "machine_facts", lambda: found)
    monkeypatch.setattr(device, "supports_bf16", lambda: bf16)
    here = find_device()
    assert (here.name, here.memory_bytes, here.bf16, here.queued) == ("A-GPU", 80, bf16, True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), True),
        (torch.OutOfMemoryError("in other words"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA out of memory. Tried to allocate 20 GiB"), False),
        (torch.AcceleratorError("an illegal memory access was encountered"), False),
    ],
    ids=str,
)
def test_what_running_out_of_memory_is(error: Exception, expected: bool) -> None:
    assert device.is_out_of_memory(error) is expected
    assert device.has_failed(error) is isinstance(error, torch.AcceleratorError)


def test_the_cpu_itself_runs_out_of_memory_in_such_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8, device="cpu")
    assert device.is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [("", ()), ("-1", ()), ("2", ("2",)), ("3, 1,", ("3", "1")), ("GPU-12ab", ("GPU-12ab",))],
)
def test_visible_gpus_are_those_of_the_variable(
    listed: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert device.visible_gpus() == expected


def test_without_the_variable_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert device.visible_gpus() == ()
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    said = "GPU 0: NVIDIA A100 (UUID: GPU-1)\nGPU 1: NVIDIA A100 (UUID: GPU-2)\n"
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_more: SimpleNamespace(stdout=said))
    assert device.visible_gpus() == ("0", "1")

    def failing(*_args: Any, **_more: Any) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(subprocess, "run", failing)
    assert device.visible_gpus() == ()


def test_a_worker_sees_the_gpu_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    with worker_environment(1, device.visible_gpus()[1]):
        assert device.visible_gpus() == ("1",)
    with worker_environment(1, None):
        assert device.visible_gpus() == ("3", "1")
