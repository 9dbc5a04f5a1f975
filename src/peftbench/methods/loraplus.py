from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._low_rank import DEFAULT, Budget, low_rank
from peftbench.models.target_modules import Layers, Modules


# Half of LoRA's learning rate and ratio 16, as in the authors' README.
@method(learning_rate=1e-4, paper="arXiv:2402.12354")
def loraplus(
    model: Any,
    *,
    rank: int = 16,
    alpha: int = 16,
    parameters: Budget | None = None,
    dropout: float = 0.05,
    ratio: float = 16.0,
    modules: Modules = DEFAULT,
    layers: Layers = "all",
) -> Adapted:
    """LoRA+: LoRA whose matrices B, which start at zero, learn at `ratio` times the rate of A."""
    adapted = low_rank(model, (rank, alpha, parameters), dropout, (modules, layers))

    def param_groups(learning_rate: float) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [
            {"params": [], "lr": learning_rate},
            {"params": [], "lr": learning_rate * ratio},
        ]
        for name, parameter in adapted.model.named_parameters():
            if parameter.requires_grad:
                groups["lora_B" in name]["params"].append(parameter)
        return groups

    adapted.param_groups = param_groups
    return adapted
