from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._low_rank import CHANGES_BASE, DEFAULT, Budget, low_rank
from peftbench.models.target_modules import Layers, Modules


# Learning rate and dropout of the authors' script for Llama-2-7B: dropout would drop principal parts of the weights.
@method(learning_rate=2e-5, paper="arXiv:2404.02948", quantised=CHANGES_BASE)
def pissa(
    model: Any,
    *,
    rank: int = 16,
    alpha: int = 16,
    parameters: Budget | None = None,
    dropout: float = 0.0,
    modules: Modules = DEFAULT,
    layers: Layers = "all",
) -> Adapted:
    """PiSSA: LoRA on the principal singular vectors of the weights, the rest of which stays in the base meanwhile."""
    return low_rank(model, (rank, alpha, parameters), dropout, (modules, layers), init_lora_weights="pissa")
