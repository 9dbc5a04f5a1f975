from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._weight_restore import put_back, train_in_place
from peftbench.models.target_modules import Layers, Modules, fitted, text_part, within

MODULES = ("q", "v")
"""Roles of the layers that get a bias in a model without biases."""


@method(learning_rate=1e-3, paper="arXiv:2106.10199", version=2)
def bitfit(model: Any, *, modules: Modules | None = None, layers: Layers = "all") -> Adapted:
    """BitFit: only bias terms are trained: those of `modules`, where a zero bias is added to a layer that has none.

    Without `modules`: all biases of the model, or, where it has none, zero biases added to query and value.
    """
    import torch

    weights = dict(model.named_parameters())
    start, said = text_part(model), tuple[str, ...]()
    biases = {name: weight for name, weight in weights.items() if name.endswith("bias") and name.startswith(start)}
    chosen, bare = within(model, biases, layers), list[str]()
    if modules is not None or not chosen:
        targets, said = fitted(model, modules or MODULES, MODULES, layers)
        named = [f"{place}.bias" for place in targets]
        chosen, bare = [name for name in named if name in biases], [name for name in named if name not in biases]
    # Trained biases are float32, and the weight of a norm must have the same type.
    beside = [weights[name] for each in chosen if (name := f"{each.removesuffix('bias')}weight") in weights]
    norms = [weight for weight in beside if weight.ndim == 1]
    restore, put_norms_back = train_in_place(biases[name] for name in chosen), put_back(norms)
    for weight in norms:
        weight.data = weight.data.float()
    hosts = [model.get_submodule(name.removesuffix(".bias")) for name in bare]
    for host in hosts:
        host.bias = torch.nn.Parameter(torch.zeros(host.out_features, device=host.weight.device))

    def remove() -> None:
        restore()
        put_norms_back()
        for host in hosts:
            host.bias = None

    who = f"{len(hosts)} of the chosen layers have" if biases else "the model has"
    notes = (f"{who} no biases: {len(hosts)} zero biases were added",) if hosts else ()
    return Adapted(
        model,
        model,
        places=[*chosen, *(name.removesuffix(".bias") for name in bare)],
        remove=remove,
        notes=(*notes, *said),
    )
