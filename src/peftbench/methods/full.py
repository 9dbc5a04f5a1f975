from typing import Any

from peftbench.methods import Adapted, method


@method(learning_rate=2e-5, quantised="quantised weights are integers, which have no gradient")
def full(model: Any) -> Adapted:
    """Full fine-tuning: every parameter is trained."""
    model.requires_grad_(True)
    return Adapted(model, model, save=model.save_pretrained)
