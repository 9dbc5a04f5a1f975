"""Peak memory of training and of answers: counted by the allocator of a GPU, by following tensors elsewhere."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peftbench.core import device
from peftbench.engine.quantization import quantization_constants


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment when training steps hold the most.

    `activations` is all that is none of the others: what the backward pass needs, and what lives for a moment only.
    """

    weights: int
    gradients: int
    optimizer_states: int
    activations: int

    @property
    def total(self) -> int:
        """The peak."""
        return self.weights + self.gradients + self.optimizer_states + self.activations

    def costs(self) -> dict[str, int]:
        """By the names of `Costs`."""
        parts = {f"peak_{part}_bytes": held for part, held in asdict(self).items()}
        return {"peak_memory_bytes": self.total, **parts}


@contextmanager
def allocator_peak() -> Iterator[Callable[[], int]]:
    """Count the memory of a GPU anew; the function that is given says the peak since then, in bytes."""
    device.reset_peak_memory()
    yield device.peak_memory_bytes


class TensorTracker(TorchDispatchMode):
    """Follows the bytes of live tensor storages on a machine without an allocator that counts.

    A storage counts from the first operation that returns it until it is freed. Memory inside a kernel, and what the
    allocator keeps for later, are not seen. Its peak agrees with `torch.distributed._tools.MemTracker`. `parts` are the
    bytes held now, `at_peak` those at the moment of most, by what they are for: activations, until `mark` says more.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts = dict.fromkeys((field.name for field in fields(Memory)), 0)
        self.at_peak = self.parts
        self.bytes = self.peak = 0
        self._live: dict[int, str] = {}

    @property
    def memory(self) -> Memory:
        """The parts of the peak."""
        return Memory(**self.at_peak)

    def mark(self, tensors: Iterable[torch.Tensor], part: str) -> None:
        """Say what tensors are for, those that no operation has returned yet too."""
        for storage in (storage for tensor in tensors for storage in _storages(tensor)):
            self._meet(storage, part)
            key, size = storage._cdata, storage.nbytes()
            if size and self._live[key] != part:
                self.parts[self._live[key]] -= size
                self.parts[part] += size
                self._live[key] = part
        if self.bytes == self.peak:
            self.at_peak = self.parts.copy()

    def restart(self) -> None:
        """Look for the peak from now on."""
        self.peak, self.at_peak = self.bytes, self.parts.copy()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in (out,) if isinstance(out, torch.Tensor) else tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                for storage in _storages(leaf):
                    self._meet(storage, "activations")
        return out

    def _meet(self, storage: torch.UntypedStorage, part: str) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._live or not size:
            return
        self._live[key] = part
        self.parts[part] += size
        self.bytes += size
        if self.bytes > self.peak:
            self.peak, self.at_peak = self.bytes, self.parts.copy()
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.parts[self._live.pop(key)] -= size
        self.bytes -= size


def states(optimizer: Any) -> list[torch.Tensor]:
    """The tensors that an optimiser keeps of its parameters."""
    held = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in held if isinstance(value, torch.Tensor)]


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of tensors, shared storages counted once."""
    storages = {storage._cdata: storage.nbytes() for tensor in tensors for storage in _storages(tensor)}
    return sum(storages.values())


def _storages(tensor: torch.Tensor) -> list[torch.UntypedStorage]:
    """Where a tensor's bytes are; those of a sparse one are its indices and values."""
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices().untyped_storage(), tensor._values().untyped_storage()]
    return [tensor.untyped_storage()]


@contextmanager
def tracked(model: torch.nn.Module, tracker: TensorTracker | None = None) -> Iterator[TensorTracker]:
    """Follow tensors on top of a model's parameters and buffers; by default with a new tracker."""
    followed = TensorTracker() if tracker is None else tracker

    def known(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        followed.mark([parameter.grad], "gradients")

    hooks = [p.register_post_accumulate_grad_hook(known) for p in model.parameters() if p.requires_grad]
    try:
        with followed:
            followed.mark((*model.parameters(), *model.buffers(), *quantization_constants(model)), "weights")
            yield followed
    finally:
        for hook in hooks:
            hook.remove()
