"""LoRA and the variants that differ from it in the configuration only."""

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
"""Maximum number of trained parameters: the rank is the largest that does not exceed it.

`rank` and `alpha` then set only the scale of the update: alpha is changed with the rank so that alpha / rank (alpha /
sqrt(rank) if rank-stabilised) is constant. With one budget, placements differ in rank but not in scale.
"""


def low_rank(
    model: Any,
    size: tuple[int, float, Budget | None],
    dropout: float,
    where: tuple[Modules, Layers],
    **variant: Any,
) -> Adapted:
    """Apply LoRA to the modules and layers of `where`.

    Args:
        model: base model.
        size: rank, alpha, and a parameter budget or `None`.
        dropout: dropout rate of the input of the update.
        where: modules, layers.
        variant: further arguments of the library's configuration.

    Raises:
        UserError: not even rank 1 is within the budget.
    """
    from peft import LoraConfig

    targets, notes = fitted(model, where[0], DEFAULT, where[1])
    rank, alpha = solved(model, targets, size, **variant)
    # The library declares alpha as an integer but accepts any number.
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
    """Return rank and alpha for these linear layers; see `Budget`. Raises `UserError` if rank 1 exceeds the budget."""
    rank, alpha, budget = size
    if budget is None:
        return rank, alpha
    sides = [_sides(model.get_submodule(target)) for target in targets]
    # DoRA also trains one magnitude per output, independent of the rank.
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
    """Return the input and output size; packed weights have a different shape, and Conv1D weights are transposed."""
    if hasattr(module, "in_features"):
        return module.in_features, module.out_features
    inputs, outputs = module.weight.shape
    return inputs, outputs


def from_orthonormal(network: Any) -> Any:
    """Return the mean Frobenius distance of the matrices A and B from orthonormality."""
    import torch

    found = []
    for name, matrix in network.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            rows = matrix if "lora_A" in name else matrix.T
            found.append(torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device)))
    return torch.stack(found).mean()
