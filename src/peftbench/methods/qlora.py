from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._low_rank import Budget, low_rank
from peftbench.models.target_modules import Layers, Modules


@method(learning_rate=2e-4, paper="arXiv:2305.14314", quantise="nf4")
def qlora(
    model: Any,
    *,
    rank: int = 64,
    alpha: int = 16,
    parameters: Budget | None = None,
    dropout: float = 0.1,
    modules: Modules = ("all-linear",),
    layers: Layers = "all",
) -> Adapted:
    """QLoRA: LoRA on every linear layer of a base whose weights are four-bit normal floats, constants quantised too.

    Trained with AdamW like all methods. The paper's paged optimiser moves its states to the host if GPU memory runs
    out, which would distort the memory measurements.
    """
    return low_rank(model, (rank, alpha, parameters), dropout, (modules, layers))
