from collections.abc import Sequence
from typing import Any

from peftbench.methods import Adapted, method
from peftbench.models.places import places


@method(learning_rate=1e-3, paper="arXiv:2106.10199")
def bitfit(model: Any, *, modules: Sequence[str] = ("q", "v")) -> Adapted:
    """BitFit: only bias terms are trained: all the model has, or, where it has none, zero biases added to `modules`."""
    import torch

    weights = dict(model.named_parameters())
    biases = {name for name in weights if name.endswith("bias")}
    if biases:
        # A norm computes in one type, and what is trained is float32.
        norms = {n for n, w in weights.items() if w.ndim == 1 and n.removesuffix("weight") + "bias" in biases}
        before = {name: weights[name].detach().clone() for name in biases | norms}
        for name in before:
            weights[name].data = weights[name].data.float()
            weights[name].requires_grad_(name in biases)

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
