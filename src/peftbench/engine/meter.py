"""The one instrument: seconds and joules by phase, and the peak memory of training steps."""

import time
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peftbench.engine.energy import Energy, counter
from peftbench.engine.quantise import constants


class Meter:
    """Seconds and joules of named phases, kept apart; a phase ends when the device has finished its work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.energy = Energy(counter())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time within to a phase."""
        wait()
        with self.energy.phase(name):
            started = time.perf_counter()
            try:
                yield
            finally:
                wait()
                self.seconds[name] += time.perf_counter() - started


def wait() -> None:
    """Until the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class TensorTracker(TorchDispatchMode):
    """Follows the bytes of live tensor storages on a machine without an allocator that counts.

    A storage counts from the first operation that returns it until it is freed. Memory inside a kernel, and what the
    allocator keeps for later, are not seen. Its peak agrees with `torch.distributed._tools.MemTracker`.
    """

    def __init__(self, start: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = start
        self._live: set[int] = set()

    def hold(self, tensors: Iterator[torch.Tensor]) -> None:
        """Mark tensors as counted already."""
        self._live.update(storage._cdata for tensor in tensors for storage in _storages(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                for storage in _storages(leaf):
                    self._meet(storage)
        return out

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._live or not size:
            return
        self._live.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._live.discard(key)
        self.bytes -= size


def tensor_bytes(tensors: Iterator[torch.Tensor]) -> int:
    """Bytes of tensors, shared storages counted once."""
    storages = {storage._cdata: storage.nbytes() for tensor in tensors for storage in _storages(tensor)}
    return sum(storages.values())


def _storages(tensor: torch.Tensor) -> list[torch.UntypedStorage]:
    """Where a tensor's bytes are; those of a sparse one are its indices and values."""
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices().untyped_storage(), tensor._values().untyped_storage()]
    return [tensor.untyped_storage()]


@contextmanager
def tracked(model: torch.nn.Module) -> Iterator[TensorTracker]:
    """Follow tensors on top of a model's parameters and buffers."""

    def held() -> Iterator[torch.Tensor]:
        yield from model.parameters()
        yield from model.buffers()
        yield from constants(model)

    with TensorTracker(tensor_bytes(held())) as tracker:
        tracker.hold(held())
        yield tracker
