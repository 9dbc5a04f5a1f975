from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError
from peftbench.methods import Adapted, TrainingContext, method
from peftbench.methods._low_rank import DEFAULT, from_orthonormal
from peftbench.methods._peft_model import save_peft_adapter, with_peft
from peftbench.models.target_modules import Layers, Modules, fitted


# Learning rate of the authors' script for MNLI; `start` and `final` are close to that script's first and last phases.
@method(learning_rate=5e-4, paper="arXiv:2303.10512")
def adalora(
    model: Any,
    *,
    rank: int = 8,
    initial_rank: int = 12,
    alpha: int = 16,
    dropout: float = 0.0,
    start: float = 0.1,
    final: float = 0.5,
    every: int = 1,
    orthogonality: float = 0.5,
    modules: Modules = DEFAULT,
    layers: Layers = "all",
) -> Adapted:
    """AdaLoRA: low-rank updates as singular values and vectors; the least important are left out while it trains.

    The mean rank falls from `initial_rank` to `rank` between the shares `start` and 1 - `final` of the steps, adjusted
    every `every` steps. `orthogonality` is the weight of the term that keeps the vectors orthonormal.
    """
    if not 0 < rank < initial_rank or min(start, final) < 0 or start + final >= 1:
        raise UserError("adalora: rank must be less than initial_rank, and start and final together less than 1")
    from peft import AdaLoraConfig

    asked: dict[str, Any] = {"init_r": initial_rank, "target_r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
    targets, notes = fitted(model, modules, DEFAULT, layers)
    asked |= {"deltaT": every, "orth_reg_weight": orthogonality, "target_modules": targets}
    config = AdaLoraConfig(**asked, total_step=1)
    adapted = with_peft(model, config)
    adapted.notes += notes

    def prepare(ahead: TrainingContext) -> None:
        if ahead.steps < 2:
            raise UserError("adalora needs at least 2 steps: one to see what is important, and one to keep it")
        config.total_step, config.tinit = ahead.steps, int(start * ahead.steps)
        config.tfinal = min(int(final * ahead.steps), ahead.steps - 2)

    def save(folder: Path) -> None:
        # Save all ranks, pruned ones as zeros: the best step may have pruned other ranks than the last.
        config.rank_pattern = None
        save_peft_adapter(adapted.model, folder)

    adapted.prepare, adapted.save = prepare, save
    adapted.after_step = adapted.model.base_model.update_and_allocate
    adapted.penalty = lambda: orthogonality * from_orthonormal(adapted.network)
    return adapted
