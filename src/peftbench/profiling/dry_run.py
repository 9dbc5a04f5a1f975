"""A training step on meta tensors: what it will hold and compute, from the configuration alone.

The step is that of `engine.train`, followed by the tracker that measures real ones on a CPU. Attention is that of the
fused kernels, which keep no scores, where the model's makers have it so.
"""

import copy
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers import AttentionInterface

from peftbench.core.spec import Training
from peftbench.engine.bf16_cpu_attention import LONGEST, by_products
from peftbench.engine.families import model_family
from peftbench.engine.model_without_weights import FORMULAS, over
from peftbench.engine.peak_memory import Memory, TensorTracker, states, tracked
from peftbench.engine.tokenization import Encoded
from peftbench.engine.train import Trainer
from peftbench.methods import Adapted
from peftbench.profiling.parameters_and_flops import LENGTH

BatchShape = tuple[int, int]
"""Tokens of a row's prompt and of its target."""
FUSED, SHORT = "peftbench_fused", "peftbench_short"
"""The name by which `transformers` knows `_fused`."""
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Counts(NamedTuple):
    """Floating-point operations, calls that make a tensor, and the bytes of their results."""

    flops: int
    calls: int
    written: int


@dataclass(frozen=True)
class Rehearsal:
    """A training step in two parts: the passes forward and backward, then the optimiser's update.

    `passes` and `update` are the memory at the peak of each, `counts` are of both together.
    """

    passes: Memory
    update: Memory
    counts: Counts

    @property
    def peak(self) -> Memory:
        """The memory at the peak of the step."""
        return max(self.passes, self.update, key=lambda memory: memory.total)


class OperationTracker(TensorTracker):
    """A tracker that counts operations, calls and the bytes of their results too."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.calls = self.written = 0

    def section(self) -> tuple[Memory, Counts]:
        """What there was since the last section ended: memory at the peak, and what was counted."""
        found = self.memory, Counts(self.flops, self.calls, self.written)
        self.flops = self.calls = self.written = 0
        self.restart()
        return found

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


def rehearse(adapted: Adapted, asked: Training, shapes: Sequence[BatchShape], low: bool = False) -> list[Rehearsal]:
    """Steps of an adapted model on the meta device, with the states of the optimiser there already.

    `shapes`: tokens of prompt and of target, a rehearsal each, on a step's rows, all of that length: what no values
    tell apart cannot be picked out. `low`: in bfloat16, but for what is trained.
    """
    if not shapes:
        return []
    return over(adapted.network, lambda: _rehearse(adapted, asked, shapes, low))


def _rehearse(adapted: Adapted, asked: Training, shapes: Sequence[BatchShape], low: bool) -> list[Rehearsal]:
    trainer = Trainer(adapted, asked, 1e-3, "fp32", 0)
    adapted.model.train()
    with tracked(adapted.model, OperationTracker()) as seen, Autocast() if low else nullcontext():
        assert isinstance(seen, OperationTracker)
        optimizer, scheduler = trainer.optimizer(len(shapes) + 1)
        for parameter in trainer.parameters:
            parameter.grad = torch.zeros_like(parameter)
            seen.mark([parameter.grad], "gradients")
        # What the first update makes is there from then on; the second is like all that follow.
        optimizer.step()
        seen.mark(states(optimizer), "optimizer_states")
        seen.section()
        trainer.update(optimizer, scheduler)
        update, updating = seen.section()
        found = []
        for prompt, target in shapes:
            optimizer.zero_grad(set_to_none=True)
            seen.section()
            trainer.backward([Encoded([0] * prompt, [0] * target)] * trainer.step_rows)
            passes, passing = seen.section()
            counts = Counts(*(one + other for one, other in zip(passing, updating, strict=True)))
            found.append(Rehearsal(passes, update, counts))
    return found


def glance(adapted: Adapted) -> Counts:
    """What one forward pass of one row of 512 tokens counts, without gradients."""
    adapted.model.eval()

    def count() -> Counts:
        with torch.no_grad(), tracked(adapted.model, OperationTracker()) as seen:
            assert isinstance(seen, OperationTracker)
            model_family(adapted.network.config).pass_over(adapted, LENGTH)
            return seen.section()[1]

    return over(adapted.network, count)


class Autocast(TorchFunctionMode):
    """What `torch.autocast` to bfloat16 does, which knows no meta tensors: products are of bfloat16.

    Parameters are cast anew for each product, where autocast keeps those that are trained.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LOW:
            args, kwargs = tree_map(_low, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


LOW = {
    *(torch.nn.functional.linear, torch.nn.functional.scaled_dot_product_attention),
    *(torch.matmul, torch.bmm, torch.baddbmm, torch.addmm, torch.mm),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.baddbmm, Tensor.addmm, Tensor.mm),
}
"""Functions that autocast gives bfloat16."""


def _low(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def fused(config: Any) -> Any:
    """A copy of a configuration whose model, built without values, has the attention that its makers prefer."""
    config = copy.deepcopy(config)
    model = model_family(config).auto._model_mapping.get(type(config), None)
    # Where classes of attention are listed, there is no other.
    listed = any(name.endswith("ATTENTION_CLASSES") for name in vars(sys.modules[model.__module__])) if model else True
    if getattr(model, "_supports_sdpa", False) and not listed:
        config._attn_implementation = FUSED
    return config


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
    # The kernel wants values as wide as queries.
    width = value.shape[-1]
    value = torch.nn.functional.pad(value, (0, query.shape[-1] - width))
    out = _flash(query, key, value, 0.0, False, attn_mask=mask, scale=asked.get("scaling"))[0]
    return out[..., :width].transpose(1, 2).contiguous(), None


def _short(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **asked: Any
) -> tuple[Tensor, None]:
    """As `peftbench.engine.bf16_cpu_attention`, of which `_fused` is the part for long rows."""
    if key.shape[2] > LONGEST:
        return _fused(module, query, key, value, mask, **asked)
    groups = getattr(module, "num_key_value_groups", 1)
    query = query.bfloat16()
    key, value = (x.bfloat16().repeat_interleave(groups, 1) for x in (key, value))
    return by_products(query, key, value, mask, asked.get("scaling"), causal=True), None


AttentionInterface.register(FUSED, _fused)
AttentionInterface.register(SHORT, _short)
