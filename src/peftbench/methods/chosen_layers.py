from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._weight_restore import train_in_place
from peftbench.models.target_modules import Layers, Modules, target_module_names, text_part, within


@method(
    learning_rate=2e-5,
    paper="arXiv:1911.03090",
    quantised="quantised weights are integers, which have no gradient",
)
def layers(model: Any, *, layers: Layers = "last-half", modules: Modules | None = None) -> Adapted:
    """Train a chosen set of the model's own layers: all of their weights, or those of `modules` in them."""
    weights = dict(model.named_parameters())
    chosen = set(within(model, [name for name in weights if name.startswith(text_part(model))], layers))
    if modules is not None:
        starts = tuple(f"{place}." for place in target_module_names(model, modules, layers))
        chosen = {name for name in chosen if name.startswith(starts)}
    undo = train_in_place(weights[name] for name in sorted(chosen))
    return Adapted(model, model, places=sorted(chosen), remove=undo)
