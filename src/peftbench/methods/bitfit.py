from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods.in_place import train_in_place
from peftbench.models.places import Layers, Modules, places, within


@method(learning_rate=1e-3, paper="arXiv:2106.10199", version=2)
def bitfit(model: Any, *, modules: Modules | None = None, layers: Layers = "all") -> Adapted:
    """BitFit: only bias terms are trained: those of `modules`, where a zero bias is added to a layer that has none.

    Without `modules`: all biases of the model, or, where it has none, zero biases added to query and value.
    """
    import torch

    biases = {name: weight for name, weight in model.named_parameters() if name.endswith("bias")}
    chosen, bare = within(model, biases, layers), list[str]()
    if modules is not None or not chosen:
        named = [f"{place}.bias" for place in places(model, modules or ("q", "v"), layers)]
        chosen, bare = [name for name in named if name in biases], [name for name in named if name not in biases]
    restore = train_in_place(biases[name] for name in chosen)
    hosts = [model.get_submodule(name.removesuffix(".bias")) for name in bare]
    for host in hosts:
        host.bias = torch.nn.Parameter(torch.zeros(host.out_features, device=host.weight.device))

    def remove() -> None:
        restore()
        for host in hosts:
            host.bias = None

    who = f"{len(hosts)} of the chosen layers have" if biases else "the model has"
    notes = (f"{who} no biases: {len(hosts)} zero biases were added",) if hosts else ()
    return Adapted(model, model, remove=remove, notes=notes)
