"""Merging: exactness is proved on the trained model of each run, and one decision holds for all measurements.

Libraries claim that a type of adapter can be merged. Whether it is so depends on the options, on the layers and on what
else in the model shares their weights: so a claim is only tried out here, and believed once it holds.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peftbench.core.registry import UserError, error_line
from peftbench.core.spec import Merging
from peftbench.engine.base_model import Base
from peftbench.engine.families import model_family
from peftbench.engine.generation import in_batches, low_precision
from peftbench.engine.tokenization import Encoded
from peftbench.methods import Adapted

ROWS = 8
"""Number of test rows on which merging is proved, with all tokens of their targets."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Largest difference of a logit due to rounding, as a share of the largest logit; see docs/measures/costs.md."""
Fold = Callable[[], AbstractContextManager[Any]]


def decide(adapted: Adapted, base: Base, rows: Sequence[Encoded]) -> tuple[Adapted, Merging | None]:
    """Return the adapted model, with `merge` only if it is proved exact, and the decision.

    What is returned is what answers, latency, memory and FLOPs go by. A merge that works but is not exact becomes the
    `lossy_merge`. None for a method that does not claim that it can be merged.
    """
    if adapted.merge is None:
        return adapted, None
    fold = partial(exactly, adapted, adapted.merge)
    tolerance = TOLERANCE[base.dtype]
    before = _logits(adapted, base, rows[:ROWS])
    if not before.isfinite().any():
        return replace(adapted, merge=None), Merging(exact=False, why="its logits are not finite")
    try:
        with fold():
            after = _logits(adapted, base, rows[:ROWS])
    except UserError as reason:
        return replace(adapted, merge=None), Merging(exact=False, why=str(reason))
    except Exception as problem:
        return replace(adapted, merge=None), Merging(exact=False, why=error_line(problem))
    difference = _largest_difference(before, after)
    limit = tolerance * _largest(before)
    # Not "greater": a difference that is no number proves nothing.
    exact = difference <= limit
    why = None if exact else f"merged, logits differ by {difference:.2g} where rounding explains {limit:.2g}"
    found = Merging(exact=exact, max_logit_difference=difference, tolerance=limit, why=why)
    return replace(adapted, merge=fold if exact else None, lossy_merge=None if exact else fold), found


def is_possible(adapted: Adapted) -> bool:
    """Return True if merging raises no error; on a model without values, the forecast for a run."""
    if adapted.merge is None:
        return False
    try:
        with exactly(adapted, adapted.merge):
            return True
    except Exception:
        return False


@contextmanager
def exactly(adapted: Adapted, fold: Fold) -> Iterator[int]:
    """Merge within a context; afterwards modules and tensors are restored bit for bit.

    What is yielded are the bytes of the copies that are kept for that, where the model is.

    Unmerging by subtraction leaves rounding behind, and a merge that raises leaves some layers merged.
    """
    before, stack = _Snapshot(adapted), ExitStack()
    try:
        with before.copying():
            stack.enter_context(fold())
        yield before.copied_bytes
    finally:
        try:
            with before.copying():
                stack.close()
        finally:
            before.restore()


class _Snapshot:
    """A record of modules, attributes and tensors, with copies of the tensors that are written to while watched."""

    def __init__(self, adapted: Adapted) -> None:
        modules = dict.fromkeys([*adapted.model.modules(), *adapted.network.modules()])
        self._attributes = [
            (module, {name: (value, _shallow(value)) for name, value in vars(module).items()}) for module in modules
        ]
        tensors = [tensor for module in modules for tensor in (*module._parameters.values(), *module._buffers.values())]
        # A tensor may be given other data: the old one may lie otherwise in memory, and round otherwise in a product.
        self._data = [(tensor, tensor.data) for tensor in tensors if tensor is not None]
        self._copies: dict[int, tuple[Any, Any]] = {}

    def copying(self) -> "_CopyBeforeWrite":
        """Return a context in which tensors are copied before an operation writes to them."""
        return _CopyBeforeWrite({data.untyped_storage()._cdata for _, data in self._data}, self._copies)

    @property
    def copied_bytes(self) -> int:
        """Return the bytes of the copies."""
        return sum(int(kept.nbytes()) for _, kept in self._copies.values())

    def restore(self) -> None:
        """Restore everything."""
        for module, attributes in self._attributes:
            held = vars(module)
            for name in held.keys() - attributes.keys():
                del held[name]
            for name, (value, content) in attributes.items():
                held[name] = value
                if isinstance(value, list):
                    value[:] = content
                elif isinstance(value, dict | set):
                    value.clear()
                    value.update(content)
        for tensor, data in self._data:
            tensor.data = data
        for storage, kept in self._copies.values():
            storage.copy_(kept)


def _shallow(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, list | dict | set) else None


class _CopyBeforeWrite(TorchDispatchMode):
    """Copies each watched storage before the first operation that writes to it."""

    def __init__(self, watched: set[int], copies: dict[int, tuple[Any, Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watched, self._copies = watched, copies

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for number, argument in enumerate(func._schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    written = args[number] if number < len(args) else kwargs.get(argument.name)
                    for tensor in (leaf for leaf in tree_leaves(written) if isinstance(leaf, Tensor)):
                        self._keep(tensor.untyped_storage())
        return func(*args, **kwargs)

    def _keep(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._watched and key not in self._copies:
            self._copies[key] = (storage, storage.clone())


@torch.no_grad()
def _logits(adapted: Adapted, base: Base, rows: Sequence[Encoded]) -> Tensor:
    """Logits [target tokens, vocabulary]."""
    adapted.model.eval()
    calls = model_family(adapted.network.config)

    def of_targets(batch: list[Encoded]) -> list[Tensor]:
        return list(calls.target_logits(adapted, batch).float().split([len(row.target) for row in batch]))

    with low_precision(base):
        return torch.cat(in_batches(rows, ROWS, of_targets))


def _largest(logits: Tensor) -> float:
    """Return the largest finite absolute logit; a model may forbid tokens by minus infinity."""
    return logits[logits.isfinite()].abs().max().item()


def _largest_difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference; infinite if a logit is finite in only one of the two."""
    finite = one.isfinite()
    if not finite.equal(other.isfinite()):
        return torch.inf
    return (one[finite] - other[finite]).abs().max().item() if finite.any() else torch.inf
