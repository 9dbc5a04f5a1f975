from typing import Any, Literal

from peftbench.methods import Adapted, method
from peftbench.models.places import places

PLACES = {"houlsby": ("o", "down"), "pfeiffer": ("down",), "parallel": ("down",)}


@method(learning_rate=2e-4, paper="arXiv:1902.00751, arXiv:2005.00247, arXiv:2110.04366")
def adapter(
    model: Any, *, form: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby", reduction: int = 16
) -> Adapted:
    """Bottleneck adapters: after attention and feed-forward (Houlsby), after the feed-forward alone (Pfeiffer), or
    beside the feed-forward (parallel, He et al.). The second matrix starts at zero: training starts at the base model.
    """
    import torch
    from torch import nn

    width = model.config.hidden_size
    narrow = max(1, width // reduction)
    hosts: list[Any] = []
    hooks: list[Any] = []

    def serial(host: Any, _inputs: Any, output: Any) -> Any:
        return output + host.peft_adapter(output)

    def parallel(host: Any, inputs: Any, output: Any) -> Any:
        return output + host.peft_adapter(inputs[0])

    for place in places(model, PLACES[form]):
        host: Any = model.get_submodule(place.rpartition(".")[0] if form == "parallel" else place)
        like = next(host.parameters())
        widen = nn.Linear(narrow, width)
        with torch.no_grad():
            widen.weight.zero_()
            widen.bias.zero_()
        net = nn.Sequential(nn.Linear(width, narrow), nn.GELU(), widen)
        host.add_module("peft_adapter", net.to(like.device))
        hooks.append(host.register_forward_hook(parallel if form == "parallel" else serial))
        hosts.append(host)

    def remove() -> None:
        for host, hook in zip(hosts, hooks, strict=True):
            hook.remove()
            del host.peft_adapter

    return Adapted(model, model, remove=remove)
