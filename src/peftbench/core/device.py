"""The device that runs compute on, the first GPU or else the CPU: its precision, its memory and its errors.

The one file that asks about accelerators. torch is imported inside functions, as commands that compute nothing do
without it.
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
"""What tells the peak memory: the tensors that are followed, or the allocator of the GPU."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use."""

    name: str
    memory_bytes: int


def has_gpu() -> bool:
    """Whether torch can use a GPU in this process."""
    import torch

    return torch.cuda.is_available()


def current_device() -> "torch.device":
    """The first GPU that this process may use if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if has_gpu() else "cpu")


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that torch can use in this process."""
    import torch

    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(Gpu(each.name, int(each.total_memory)) for each in found)


def gpu_uuid() -> str:
    """The GPU in use, by the name that NVIDIA's driver has for it. Raises what torch does if there is none."""
    import torch

    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    return f"GPU-{str(uuid).removeprefix('GPU-')}"


def visible_gpus() -> tuple[str, ...]:
    """The GPUs of the machine that are not hidden, as entries of CUDA_VISIBLE_DEVICES; asked without torch."""
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
    """Whether the device multiplies matrices of bfloat16 by instructions of its own: on a CPU those of AMX."""
    import torch

    if has_gpu():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())


def autocast(enabled: bool) -> AbstractContextManager[Any]:
    """Products in bfloat16 on this device where enabled, else in the precision of their operands."""
    import torch

    return torch.autocast(current_device().type, torch.bfloat16, enabled=enabled)


def synchronize() -> None:
    """Wait until the device has finished its work. A CPU has, whenever a call returns."""
    import torch

    if has_gpu():
        torch.cuda.synchronize()


def empty_cache() -> None:
    """Give back memory that the allocator of a GPU keeps for later. That of a CPU keeps none in torch."""
    import torch

    if has_gpu():
        torch.cuda.empty_cache()


def memory_source() -> MemorySource:
    """What tells the peak memory here."""
    return "cuda-allocator" if has_gpu() else "tracked-tensors"


def reset_peak_memory() -> None:
    """Let the allocator look for its peaks from now on. Raises `RuntimeError` without a GPU."""
    _allocator().reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """The most bytes that tensors held since the last reset. Raises `RuntimeError` without a GPU."""
    return int(_allocator().max_memory_allocated())


def peak_reserved_bytes() -> int:
    """The most bytes that the allocator took from the GPU since the last reset. Raises `RuntimeError` without one."""
    return int(_allocator().max_memory_reserved())


def _allocator() -> Any:
    import torch

    if not has_gpu():
        raise RuntimeError("no GPU, so no allocator that counts: memory is that of tracked tensors")
    return torch.cuda


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the machine: less at a time might help."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and should_reduce_batch_size(error)


def has_failed(error: BaseException) -> bool:
    """Whether an error says that the GPU has failed, which this process can then use no more."""
    import torch

    return isinstance(error, torch.AcceleratorError)
