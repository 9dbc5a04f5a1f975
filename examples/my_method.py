"""A method from outside, as `examples/github/peftbench-gate.yml` tests one."""

from typing import Any

from peftbench.methods import METHODS, Adapted, method


@method(learning_rate=2e-3)
def my_method(model: Any, *, rank: int = 16) -> Adapted:
    """LoRA on every linear layer that starts with orthonormal rows."""
    from torch import nn

    modules = ["q", "k", "v", "o", "gate", "up", "down"]
    adapted: Adapted = METHODS["lora"].function(model, rank=rank, alpha=2 * rank, dropout=0.0, modules=modules)
    for name, weight in adapted.model.named_parameters():
        if "lora_A" in name and not weight.is_meta:
            nn.init.orthogonal_(weight)
    return adapted
