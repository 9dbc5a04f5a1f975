"""The compute device, the first GPU or else the CPU: its precision, memory and errors.

All queries about accelerators are in this module. torch is imported inside functions, because commands that compute
nothing do not need it.
"""

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

MemorySource = Literal["tracked-tensors", "cuda-allocator"]
"""Source of the peak memory: tracked tensors, or the allocator of the GPU."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use."""

    name: str
    memory_bytes: int


def has_gpu() -> bool:
    """Return True if torch can use a GPU in this process."""
    import torch

    return torch.cuda.is_available()


def current_device() -> "torch.device":
    """Return the first GPU that this process may use, else the CPU."""
    import torch

    return torch.device("cuda" if has_gpu() else "cpu")


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that torch can use in this process."""
    import torch

    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(Gpu(each.name, int(each.total_memory)) for each in properties)


def gpu_uuid() -> str:
    """Return the UUID of the current GPU as NVIDIA's driver writes it. Raises torch's error if there is no GPU."""
    import torch

    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    return f"GPU-{str(uuid).removeprefix('GPU-')}"


def visible_gpus() -> tuple[str, ...]:
    """Return the visible GPUs of the machine as entries of CUDA_VISIBLE_DEVICES, without importing torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        entries = (part.strip() for part in os.environ["CUDA_VISIBLE_DEVICES"].split(","))
        return tuple(entry for entry in entries if entry not in ("", "-1"))
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return ()
    try:
        listed = subprocess.run([driver, "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(map(str, range(listed.stdout.count("GPU "))))


def supports_bf16() -> bool:
    """Return True if there is a GPU with instructions for bfloat16. Of a CPU, see `peftbench.engine.precision`."""
    import torch

    return has_gpu() and bool(torch.cuda.is_bf16_supported(including_emulation=False))


def autocast(enabled: bool) -> AbstractContextManager[Any]:
    """Return a context in which matrix products use bfloat16 if `enabled`, else the precision of their operands."""
    import torch

    return torch.autocast(current_device().type, torch.bfloat16, enabled=enabled)


def synchronize() -> None:
    """Wait until the GPU has finished its work. Does nothing on a CPU, which runs synchronously."""
    import torch

    if has_gpu():
        torch.cuda.synchronize()


def empty_cache() -> None:
    """Release the memory cached by the GPU's allocator. Does nothing on a CPU, where torch caches none."""
    import torch

    if has_gpu():
        torch.cuda.empty_cache()


def memory_source() -> MemorySource:
    """Return the source of the peak memory on this device."""
    return "cuda-allocator" if has_gpu() else "tracked-tensors"


def reset_peak_memory() -> None:
    """Reset the peaks that the allocator records. Raises `RuntimeError` without a GPU."""
    _allocator().reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """Return the peak of allocated bytes since the last reset. Raises `RuntimeError` without a GPU."""
    return int(_allocator().max_memory_allocated())


def peak_reserved_bytes() -> int:
    """Return the peak of reserved bytes since the last reset. Raises `RuntimeError` without a GPU."""
    return int(_allocator().max_memory_reserved())


def _allocator() -> Any:
    import torch

    if not has_gpu():
        raise RuntimeError("there is no GPU, so no statistics of its allocator: memory is measured by tracked tensors")
    return torch.cuda


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that the GPU or the machine ran out of memory, so a smaller batch may help."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and should_reduce_batch_size(error)


def has_failed(error: BaseException) -> bool:
    """Return True if an error means that the GPU has failed and this process can no longer use it."""
    import torch

    return isinstance(error, torch.AcceleratorError)
