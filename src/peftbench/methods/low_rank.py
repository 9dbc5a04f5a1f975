"""LoRA and its variants: one configuration, with facts changed."""

from typing import Any

from peftbench.methods import Adapted
from peftbench.methods.peft_model import with_peft
from peftbench.models.places import Layers, Modules, places

DEFAULT = ("k", "v", "down")
"""The modules of PEFT-Bench (arXiv 2511.21285)."""
CHANGES_BASE = "it takes a part out of the base's weights, which would be quantised anew"
"""Why a variant cannot be used on a quantised base."""


def low_rank(
    model: Any, rank: int, alpha: int, dropout: float, where: tuple[Modules, Layers], **variant: Any
) -> Adapted:
    """LoRA on the modules and layers of `where`; `variant`: more arguments of the library's configuration."""
    from peft import LoraConfig

    targets = places(model, *where)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, **variant)
    return with_peft(model, config, mergeable=True)


def from_orthonormal(network: Any) -> Any:
    """How far the vectors of matrices A and B are from orthonormal: the mean Frobenius distance over all of them."""
    import torch

    found = []
    for name, matrix in network.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            rows = matrix if "lora_A" in name else matrix.T
            found.append(torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device)))
    return torch.stack(found).mean()
