from functools import partial
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
    from torch import nn

    width = model.config.hidden_size
    narrow = max(1, width // reduction)
    hosts: list[Any] = []
    hooks: list[Any] = []
    starts = places(model, ("up",)) if form == "parallel" else ()

    def serial(host: Any, _inputs: Any, output: Any) -> Any:
        return output + host.peft_adapter(output)

    def parallel(host: Any, _inputs: Any, output: Any) -> Any:
        return output + host.peft_adapter(host.peft_adapter_input)

    for number, place in enumerate(places(model, PLACES[form])):
        host: Any = model.get_submodule(place)
        widen = nn.Linear(narrow, width)
        nn.init.zeros_(widen.weight)
        nn.init.zeros_(widen.bias)
        net = nn.Sequential(nn.Linear(width, narrow), nn.GELU(), widen)
        host.add_module("peft_adapter", net.to(next(host.parameters()).device))
        hooks.append(host.register_forward_hook(parallel if starts else serial))
        if starts:
            # The feed-forward may have no module of its own: its input is that of its first matrix.
            start = model.get_submodule(starts[number])
            keep = partial(_keep_input, host)
            hooks.append(start.register_forward_pre_hook(keep))
        hosts.append(host)

    def remove() -> None:
        for hook in hooks:
            hook.remove()
        for host in hosts:
            del host.peft_adapter
            host.__dict__.pop("peft_adapter_input", None)

    return Adapted(model, model, remove=remove)


def _keep_input(host: Any, _module: Any, inputs: Any) -> None:
    host.__dict__["peft_adapter_input"] = inputs[0]
