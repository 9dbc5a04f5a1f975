from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._low_rank import DEFAULT, Budget, low_rank
from peftbench.models.target_modules import Layers, Modules


# LoRA's learning rate: the paper changes only the scale, which at rank 16 is four times LoRA's.
@method(learning_rate=2e-4, paper="arXiv:2312.03732")
def rslora(
    model: Any,
    *,
    rank: int = 16,
    alpha: int = 16,
    parameters: Budget | None = None,
    dropout: float = 0.05,
    modules: Modules = DEFAULT,
    layers: Layers = "all",
) -> Adapted:
    """Rank-stabilised LoRA: scaled by alpha over the square root of the rank, not over the rank."""
    return low_rank(model, (rank, alpha, parameters), dropout, (modules, layers), use_rslora=True)
