from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._low_rank import DEFAULT, Budget, low_rank
from peftbench.models.target_modules import Layers, Modules


@method(learning_rate=2e-4, paper="arXiv:2106.09685", version=2)
def lora(
    model: Any,
    *,
    rank: int = 16,
    alpha: int = 16,
    parameters: Budget | None = None,
    dropout: float = 0.05,
    modules: Modules = DEFAULT,
    layers: Layers = "all",
) -> Adapted:
    """LoRA: low-rank updates of linear layers."""
    return low_rank(model, (rank, alpha, parameters), dropout, (modules, layers))
