"""What passes over tensors without values (the meta device) need, so that operations can be counted on them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper
from transformers.integrations import moe

T = TypeVar("T")
Mask = Literal["square", "flat", "none"]
"""What a network is given for its attention mask: what `forward` gives, one row a sequence, or nothing."""
GROUPED = "peftbench_grouped"
"""The name by which `transformers` knows `_grouped_experts`."""


def _shaped(formula: Callable[..., int]) -> Callable[..., int]:
    """A formula of shapes as one of tensors, marked as such for `FlopCounterMode`."""
    counted: Any = shape_wrapper(formula)
    counted._get_raw = True
    return cast("Callable[..., int]", counted)


def _grouped(rows: Any, matrices: Any, *_: Any, **__: Any) -> int:
    # [rows, in] by one of [experts, in, out] each; of gradients also [in, rows] by [rows, out], a group of rows each.
    return int(2 * rows[0] * rows[1] * matrices[-1])


def _attended(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attended_back(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


GROUPED_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._grouped_mm: _shaped(_grouped),
    torch.ops.transformers.grouped_mm_fallback: _shaped(_grouped),
}
"""Operations of the experts of a mixture: each row by the matrices of the experts that it goes to, and no others."""
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    **GROUPED_FORMULAS,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _shaped(_attended),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _shaped(_attended_back),
}
"""Operations of calls as `torch.utils.flop_counter` counts them, with those of kernels that it does not know."""


def _first_expert(rows: Tensor, matrices: Tensor, **_offsets: Any) -> Tensor:
    return rows.to(matrices.dtype) @ matrices[0]


def _grouped_experts(*inputs: Any, **named: Any) -> Any:
    """The experts of `transformers` where no values say which rows go to which expert: all are the first one's, which
    is as much work.
    """
    library: Any = moe
    grouped = library._grouped_mm
    library._grouped_mm = _first_expert
    try:
        return library.grouped_mm_experts_forward(*inputs, **named)
    finally:
        library._grouped_mm = grouped


moe.ExpertsInterface.register(GROUPED, _grouped_experts)


class _Answers(TorchDispatchMode):
    """To questions whether something holds of a tensor without values, the answer is yes: there is no padding."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta and args[0].dtype == torch.bool:
            return True
        return func(*args, **(kwargs or {}))


_known: dict[Any, Mask] = {}
"""What kinds of networks were found to take."""


def over(network: Any, count: Callable[[], T]) -> T:
    """What a function counts that passes over a network without values, with a mask that the network takes.

    Raises what it raises with the usual mask, if it takes none.
    """
    config = network.config
    kind = (type(network), getattr(config, "alibi", None))
    tried: tuple[Mask, ...] = (_known[kind],) if kind in _known else ("square", "flat", "none")
    first: Exception | None = None
    for mask in tried:
        try:
            with _masked(network, mask), _Answers():  # type: ignore[no-untyped-call]
                found = count()
            _known[kind] = mask
            return found
        except Exception as problem:
            first = first or problem
    assert first is not None
    raise first


@contextmanager
def _masked(network: Any, mask: Mask) -> Iterator[None]:
    """A network that is called with another mask than it is given."""

    def changed(_network: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        square = kwargs.get("attention_mask")
        if mask == "square" or not isinstance(square, Tensor) or square.ndim != 4:
            return None
        flat = torch.ones((square.shape[0], square.shape[-1]), dtype=torch.long, device=square.device)
        return args, kwargs | {"attention_mask": flat if mask == "flat" else None}

    hook = network.register_forward_pre_hook(changed, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
