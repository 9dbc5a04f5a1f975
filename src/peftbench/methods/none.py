from typing import Any

from peftbench.methods import Adapted, method


@method(learning_rate=None, trains=False)
def none(model: Any) -> Adapted:
    """The untouched base model, answering zero-shot."""
    return Adapted(model, model)
