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

    Trained by AdamW as all methods are; the paper's moves its states to the host where a GPU's memory runs out, which
    would hide what is measured here.
    """
    return low_rank(model, (rank, alpha, parameters), dropout, (modules, layers))
