from collections.abc import Sequence
from typing import Any

from peftbench.methods import Adapted, method
from peftbench.models.places import places


@method(learning_rate=1e-3, paper="arXiv:2106.10199")
def bitfit(model: Any, *, modules: Sequence[str] = ("q", "v")) -> Adapted:
    """BitFit: only bias terms are trained: all the model has, or, where it has none, zero biases added to `modules`."""
    import torch

    biases = {name: weight for name, weight in model.named_parameters() if name.endswith("bias")}
    if biases:
        before = {name: weight.detach().clone() for name, weight in biases.items()}
        for weight in biases.values():
            weight.requires_grad_(True)

        def restore() -> None:
            for name, weight in model.named_parameters():
                if name in before:
                    weight.data = before[name]

        return Adapted(model, model, remove=restore)

    layers = [model.get_submodule(place) for place in places(model, modules)]
    for layer in layers:
        layer.bias = torch.nn.Parameter(torch.zeros(layer.out_features, device=layer.weight.device))

    def remove() -> None:
        for layer in layers:
            layer.bias = None

    note = f"the model has no biases: {len(layers)} zero biases were added to {', '.join(modules)}"
    return Adapted(model, model, remove=remove, notes=(note,))
