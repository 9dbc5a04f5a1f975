from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._peft_model import with_peft
from peftbench.models.target_modules import Layers, norms


@method(learning_rate=1e-3, paper="arXiv:2312.11420")
def lntuning(model: Any, *, layers: Layers = "all") -> Adapted:
    """LN tuning: the weights of every normalisation layer, with `all` layers the final one too."""
    from peft import LNTuningConfig

    return with_peft(model, LNTuningConfig(target_modules=norms(model, layers)))
