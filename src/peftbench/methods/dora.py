from typing import Any

from peftbench.core.registry import UserError
from peftbench.methods import Adapted, method
from peftbench.methods._low_rank import DEFAULT, Budget, low_rank
from peftbench.models.target_modules import Layers, Modules


# Learning rate of the authors' script for Llama-3-8B.
@method(learning_rate=1e-4, paper="arXiv:2402.09353")
def dora(
    model: Any,
    *,
    rank: int = 16,
    alpha: int = 16,
    parameters: Budget | None = None,
    dropout: float = 0.05,
    modules: Modules = DEFAULT,
    layers: Layers = "all",
) -> Adapted:
    """DoRA: low-rank updates of the direction of each output's weights, whose length is trained apart."""
    if getattr(model, "is_loaded_in_8bit", False):
        raise UserError("dora cannot be put on weights of eight bits, whose scales peft loses: use nf4")
    return low_rank(model, (rank, alpha, parameters), dropout, (modules, layers), use_dora=True)
