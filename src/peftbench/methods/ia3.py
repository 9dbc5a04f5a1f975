from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods.peft_model import with_peft
from peftbench.models.places import Layers, Modules, places


@method(learning_rate=5e-3, paper="arXiv:2205.05638", version=2)
def ia3(
    model: Any, *, modules: Modules = ("k", "v", "down"), feedforward: Modules = ("down",), layers: Layers = "all"
) -> Adapted:
    """IA3: element-wise scales of the outputs of `modules`, and of the inputs of those also named in `feedforward`."""
    from peft import IA3Config

    inputs = places(model, feedforward, layers) if feedforward else []
    targets = places(model, modules, layers)
    config = IA3Config(target_modules=targets, feedforward_modules=[name for name in inputs if name in targets])
    return with_peft(model, config)
