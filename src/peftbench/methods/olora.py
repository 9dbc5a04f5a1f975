from typing import Any

from peftbench.core.registry import UserError
from peftbench.methods import Adapted, method
from peftbench.methods._low_rank import CHANGES_BASE, DEFAULT, Budget, low_rank, solved
from peftbench.models.target_modules import Layers, Modules, fitted


# The paper's learning rate. No dropout: it would drop parts of the base weights.
@method(learning_rate=3e-4, paper="arXiv:2406.01775", quantised=CHANGES_BASE)
def olora(
    model: Any,
    *,
    rank: int = 16,
    alpha: int = 16,
    parameters: Budget | None = None,
    dropout: float = 0.0,
    modules: Modules = DEFAULT,
    layers: Layers = "all",
) -> Adapted:
    """OLoRA: LoRA on the first orthonormal directions of the weights, the rest of which stays in the base meanwhile."""
    targets, _ = fitted(model, modules, DEFAULT, layers)
    needed, _ = solved(model, targets, (rank, alpha, parameters))
    for place in targets:
        module = model.get_submodule(place)
        if type(module).__name__ == "Conv1D":
            raise UserError(f"olora: peft has it for Linear layers only, and {place} is a Conv1D: use pissa")
        if needed > min(module.weight.shape):
            raise UserError(f"olora: rank {needed} is more than {place} has, {min(module.weight.shape)}")
    return low_rank(model, (rank, alpha, parameters), dropout, (modules, layers), init_lora_weights="olora")
