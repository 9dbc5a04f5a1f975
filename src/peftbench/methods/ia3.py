from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._peft_model import with_peft
from peftbench.models.target_modules import Layers, Modules, fitted, playing, target_module_names

MODULES, FEEDFORWARD = ("k", "v", "down"), ("down",)


@method(learning_rate=5e-3, paper="arXiv:2205.05638", version=2)
def ia3(
    model: Any, *, modules: Modules = MODULES, feedforward: Modules = FEEDFORWARD, layers: Layers = "all"
) -> Adapted:
    """IA3: element-wise scales of the outputs of `modules`, and of the inputs of those also named in `feedforward`."""
    from peft import IA3Config

    targets, notes = fitted(model, modules, MODULES, layers)
    # Unlike an explicit `feedforward`, the default may match no layer.
    find = playing if tuple(feedforward) == FEEDFORWARD else target_module_names
    inputs = find(model, feedforward, layers) if feedforward else []
    config = IA3Config(target_modules=targets, feedforward_modules=[name for name in inputs if name in targets])
    adapted = with_peft(model, config)
    adapted.notes += notes
    return adapted
