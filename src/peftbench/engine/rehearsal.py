"""A training step on meta tensors: what it will hold and compute, from the configuration alone.

The step is that of `engine.train`, followed by the tracker that measures real ones on a CPU. Attention is that of the
fused kernels, which keep no scores, where the model's makers have it so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AttentionInterface

from peftbench.engine.meter import Memory, TensorTracker, states, tracked
from peftbench.engine.tokens import Encoded
from peftbench.engine.train import Trainer
from peftbench.methods import Adapted
from peftbench.spec import Training

FUSED = "peftbench_fused"
"""The name by which `transformers` knows `_fused`."""
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _forward_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _backward_flops(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _flash: _forward_flops,
    _flash_backward: _backward_flops,
}
"""Operations of what is called, as `torch.utils.flop_counter` counts them; it does not know the fused kernel of a CPU."""


@dataclass(frozen=True)
class Rehearsal:
    """What a training step holds at its peak, and the floating-point operations, calls and bytes written of it."""

    memory: Memory
    flops: int
    calls: int
    bytes_written: int


class Counter(TensorTracker):
    """A tracker that counts operations, calls and the bytes of their results too."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.calls = self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if not func.is_view:
            self.calls += 1
            if isinstance(out, Tensor):
                self.written += out.numel() * out.element_size()
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def rehearse(adapted: Adapted, asked: Training, rows: list[Encoded]) -> Rehearsal:
    """One step of an adapted model on the meta device, with the states of the optimiser there already.

    `rows`: of one length each for prompt and target, as what no values tell apart cannot be picked out.
    """
    trainer = Trainer(adapted, asked, 1e-3, "fp32", 0)
    with tracked(adapted.model, Counter()) as seen:
        assert isinstance(seen, Counter)
        optimizer, scheduler = trainer.optimizer(1)
        for parameter in trainer.parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen.mark(states(optimizer), "optimizer_states")
        seen.flops = seen.calls = seen.written = 0
        trainer.step(rows, optimizer, scheduler)
    return Rehearsal(seen.memory, seen.flops, seen.calls, seen.written)


def _fused(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **asked: Any
) -> tuple[Tensor, None]:
    """Attention of `transformers` on meta tensors, as its `sdpa` has it of a CPU's fused kernel.

    `query`, `key`, `value` [batch, heads, length, width]; returns [batch, length, heads, width].
    """
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype)
    out = _flash(query, key, value, 0.0, False, attn_mask=mask, scale=asked.get("scaling"))[0]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(FUSED, _fused)
