"""Trained models to files and back."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from peftbench.engine.load import Base
from peftbench.methods import METHODS, Adapted
from peftbench.methods.peft_model import from_files
from peftbench.registry import UserError
from peftbench.seeds import stream
from peftbench.spec import Choice

TRAINED = "trained.safetensors"
"""The trained tensors of a method that has no format of its own, by the names of the adapted model's parameters."""


def save(adapted: Adapted, folder: Path, keep: bool = True) -> int:
    """Write what must be kept to use the model on its base, and return the bytes of its weights.

    `keep=False` removes it again. Configuration files are not counted: they name the base by its path, which is no
    cost of the method. Methods of the `peft` library write its format, full fine-tuning that of `transformers`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapted.save is not None:
        adapted.save(folder)
    else:
        named = adapted.model.named_parameters()
        save_file({n: p.detach().contiguous() for n, p in named if p.requires_grad}, folder / TRAINED)
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    if not keep:
        shutil.rmtree(folder)
    return size


def load(base: Base, method: Choice, folder: Path, seed: int = 0) -> Adapted:
    """The adapted model that `save` wrote, on its base, ready to answer. `seed`: that of the run, which placed it.

    Raises `UserError` if what was saved is not what the method trains with these arguments and this seed.
    """
    if (folder / "adapter_config.json").is_file():
        return from_files(base.model, folder)
    if (folder / "config.json").is_file():
        network: Any = base.shape.auto.from_pretrained(folder, dtype=torch.float32)
        return Adapted(network.to(base.model.device).eval(), network)
    torch.manual_seed(stream(seed, "init"))
    adapted: Adapted = METHODS[method.name].function(base.model, **method.arguments)
    saved = load_file(folder / TRAINED, device=str(base.model.device))
    trained = {name: p for name, p in adapted.model.named_parameters() if p.requires_grad}
    if trained.keys() != saved.keys():
        if adapted.remove is not None:
            adapted.remove()
        raise UserError(f"{folder}: not what {method} trains on this model with seed {seed}")
    for name, parameter in trained.items():
        parameter.data = saved[name]
    adapted.model.eval()
    return adapted
