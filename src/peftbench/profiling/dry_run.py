"""Memory and FLOPs of a training step, from the configuration alone, on meta tensors.

The step is that of `engine.train`, under the tracker that measures real steps on a CPU. Attention uses fused kernels,
which store no scores, if the model supports them.
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
"""Tokens of the prompt and of the target of a row."""
FUSED, SHORT = "peftbench_fused", "peftbench_short"
"""Names under which `_fused` and `_short` are registered in `transformers`."""
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Counts(NamedTuple):
    """FLOPs, calls that create a tensor, and the bytes of their results."""

    flops: int
    calls: int
    written: int


@dataclass(frozen=True)
class Rehearsal:
    """A training step: peak memory of the forward and backward passes and of the update, and the counts of both."""

    passes: Memory
    update: Memory
    counts: Counts

    @property
    def peak(self) -> Memory:
        """The memory at the peak of the step."""
        return max(self.passes, self.update, key=lambda memory: memory.total)


class OperationTracker(TensorTracker):
    """A memory tracker that also counts FLOPs, calls and the bytes of their results."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.calls = self.written = 0

    def section(self) -> tuple[Memory, Counts]:
        """Return peak memory and counts since the last call, and reset them."""
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
    """Return a rehearsal per shape of an adapted model on the meta device; optimiser states exist already.

    All rows of a step have the same shape (tokens of prompt and target). `low`: bfloat16, except trained parameters.
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
        # The first update creates the optimiser states; all later updates are alike.
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
    """Return the counts of one forward pass of one row of 512 tokens without gradients."""
    adapted.model.eval()

    def count() -> Counts:
        with torch.no_grad(), tracked(adapted.model, OperationTracker()) as seen:
            assert isinstance(seen, OperationTracker)
            model_family(adapted.network.config).pass_over(adapted, LENGTH)
            return seen.section()[1]

    return over(adapted.network, count)


class Autocast(TorchFunctionMode):
    """Computes matrix products in bfloat16 like `torch.autocast`, which does not support meta tensors.

    Parameters are cast for each product; `torch.autocast` caches the casts of trained parameters.
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
"""Functions that autocast computes in bfloat16."""


def _low(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def fused(config: Any) -> Any:
    """Return a copy of a configuration with fused attention if its model supports SDPA."""
    config = copy.deepcopy(config)
    model = model_family(config).auto._model_mapping.get(type(config), None)
    # Models that list attention classes do not support registered attention functions.
    listed = any(name.endswith("ATTENTION_CLASSES") for name in vars(sys.modules[model.__module__])) if model else True
    if getattr(model, "_supports_sdpa", False) and not listed:
        config._attn_implementation = FUSED
    return config


def _fused(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **asked: Any
) -> tuple[Tensor, None]:
    """Return attention on meta tensors, as `sdpa` of `transformers` computes it with the fused CPU kernel.

    `query`, `key`, `value`: [batch, heads, length, width]; result: [batch, length, heads, width].
    """
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype)
    # The kernel requires values of the same width as queries.
    width = value.shape[-1]
    value = torch.nn.functional.pad(value, (0, query.shape[-1] - width))
    out = _flash(query, key, value, 0.0, False, attn_mask=mask, scale=asked.get("scaling"))[0]
    return out[..., :width].transpose(1, 2).contiguous(), None


def _short(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **asked: Any
) -> tuple[Tensor, None]:
    """Return attention as in `peftbench.engine.bf16_cpu_attention`, with `_fused` for more than `LONGEST` keys."""
    if key.shape[2] > LONGEST:
        return _fused(module, query, key, value, mask, **asked)
    groups = getattr(module, "num_key_value_groups", 1)
    query = query.bfloat16()
    key, value = (x.bfloat16().repeat_interleave(groups, 1) for x in (key, value))
    return by_products(query, key, value, mask, asked.get("scaling"), causal=True), None


AttentionInterface.register(FUSED, _fused)
AttentionInterface.register(SHORT, _short)
