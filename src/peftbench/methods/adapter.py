from typing import Any, Literal

from peftbench.core.registry import UserError
from peftbench.methods import Adapted, method
from peftbench.models.target_modules import Layers, Modules, fitted, target_module_names

PLACES = {"houlsby": ("o", "down"), "pfeiffer": ("down",), "parallel": ("down",)}
"""The last matrix of each sublayer that has an adapter."""


@method(learning_rate=2e-4, paper="arXiv:1902.00751, arXiv:2005.00247, arXiv:2110.04366")
def adapter(
    model: Any,
    *,
    form: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby",
    reduction: int = 16,
    modules: Modules = "all-linear",
    layers: Layers = "all",
) -> Adapted:
    """Bottleneck adapters: after attention and feed-forward (Houlsby), after the feed-forward alone (Pfeiffer), or
    beside it (parallel, He et al.); of these, those in `modules`. They start at the base model: what they add is zero.
    """
    from torch import nn

    meant = target_module_names(model, modules, layers)
    targets, notes = fitted(model, PLACES[form], PLACES[form], layers)
    if not (ends := [place for place in targets if place in meant]):
        raise UserError(f"adapter: those of form '{form}' stand at {' and '.join(PLACES[form])}: put that into modules")
    width = model.config.get_text_config().hidden_size
    hosts = [model.get_submodule(end) for end in ends]
    hooks = []
    if form == "parallel":
        # The feed-forward may not be a separate module, so its input is taken from its first matrix.
        starts = {start.rpartition(".")[0]: start for start in target_module_names(model, ("up",), layers)}
        for end, host in zip(ends, hosts, strict=True):
            if (inside := end.rpartition(".")[0]) not in starts:
                raise UserError(
                    f"adapter: form 'parallel' needs the first and the last matrix in one module, not {end}"
                )
            first = model.get_submodule(starts[inside])
            hooks.append(first.register_forward_pre_hook(_keep_for(host)))
    for host in hosts:
        widen = nn.Linear(max(1, width // reduction), width)
        nn.init.zeros_(widen.weight)
        nn.init.zeros_(widen.bias)
        net = nn.Sequential(nn.Linear(width, widen.in_features), nn.GELU(), widen)
        host.add_module("peft_adapter", net.to(host.weight.device))
        hooks.append(host.register_forward_hook(_add))

    def remove() -> None:
        for hook in hooks:
            hook.remove()
        for host in hosts:
            del host.peft_adapter
            host.__dict__.pop("peft_adapter_input", None)

    return Adapted(model, model, places=ends, remove=remove, notes=notes)


def _keep_for(host: Any) -> Any:
    return lambda _module, inputs: host.__dict__.update(peft_adapter_input=inputs[0])


def _add(host: Any, _inputs: Any, output: Any) -> Any:
    return output + host.peft_adapter(host.__dict__.get("peft_adapter_input", output))
