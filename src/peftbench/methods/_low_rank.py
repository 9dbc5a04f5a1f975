"""LoRA and its variants: one configuration, with facts changed."""

import math
from collections.abc import Sequence
from typing import Any

from pydantic import PositiveInt

from peftbench.core.registry import UserError
from peftbench.methods import Adapted
from peftbench.methods._peft_model import with_peft
from peftbench.models.target_modules import Layers, Modules, fitted

DEFAULT = ("k", "v", "down")
"""The modules of PEFT-Bench (arXiv 2511.21285)."""
CHANGES_BASE = "it takes a part out of the base's weights, which would be quantised anew"
"""Why a variant cannot be used on a quantised base."""


Budget = PositiveInt
"""How many parameters may be trained: the rank is then the largest that does not train more.

`rank` and `alpha` only give the scale of the update then: alpha goes with the rank, so that alpha over rank (over its
root in the rank-stabilised form) stays what the two say. Placements of one budget have other ranks and the same scale.
"""


def low_rank(
    model: Any,
    size: tuple[int, float, Budget | None],
    dropout: float,
    where: tuple[Modules, Layers],
    **variant: Any,
) -> Adapted:
    """LoRA on the modules and layers of `where`.

    Args:
        model: the base.
        size: rank, alpha, and a budget of parameters that the rank is solved from, if there is one.
        dropout: of the input of the update.
        where: modules, layers.
        variant: more arguments of the library's configuration.

    Raises:
        UserError: not even rank 1 is within the budget.
    """
    from peft import LoraConfig

    targets, notes = fitted(model, where[0], DEFAULT, where[1])
    rank, alpha = solved(model, targets, size, **variant)
    # The library says that alpha is a whole number, and works with any.
    asked: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "target_modules": targets}
    config = LoraConfig(**asked, **variant)
    adapted = with_peft(model, config)
    adapted.notes += notes
    if size[2] is not None:
        adapted.notes += (f"rank {rank}, alpha {alpha:g}: the largest rank of at most {size[2]:,} parameters",)
    return adapted


def solved(
    model: Any, targets: Sequence[str], size: tuple[int, float, Budget | None], **variant: Any
) -> tuple[int, float]:
    """Rank and alpha of a size on these linear layers; see `Budget`."""
    rank, alpha, budget = size
    if budget is None:
        return rank, alpha
    sides = [_sides(model.get_submodule(target)) for target in targets]
    # DoRA trains a length of each output, whatever the rank.
    fixed, each = sum(out for _, out in sides) if variant.get("use_dora") else 0, sum(map(sum, sides))
    found = (budget - fixed) // each
    if found < 1:
        raise UserError(
            f"parameters = {budget:,} is too few for these {len(targets)} linear layers, of which rank 1 trains "
            f"{fixed + each:,}: give more, or fewer layers or modules"
        )
    ratio = found / rank
    return found, alpha * (math.sqrt(ratio) if variant.get("use_rslora") else ratio)


def _sides(module: Any) -> tuple[int, int]:
    """How many inputs and outputs a linear layer has; packed weights have another shape, a Conv1D has it turned."""
    if hasattr(module, "in_features"):
        return module.in_features, module.out_features
    inputs, outputs = module.weight.shape
    return inputs, outputs


def from_orthonormal(network: Any) -> Any:
    """How far the vectors of matrices A and B are from orthonormal: the mean Frobenius distance over all of them."""
    import torch

    found = []
    for name, matrix in network.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            rows = matrix if "lora_A" in name else matrix.T
            found.append(torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device)))
    return torch.stack(found).mean()
