"""Trained models to files and back."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from peftbench.core.spec import Choice
from peftbench.engine.base_model import Base
from peftbench.methods import Adapted
from peftbench.methods._saved_files import put_on
from peftbench.models.saved_model_files import ORIGIN, TRAINED, weight_bytes


def save_checkpoint(adapted: Adapted, folder: Path, keep: bool = True, origin: Mapping[str, Any] | None = None) -> int:
    """Write what must be kept to use the model on its base, and return the bytes of its weights.

    `keep=False` removes it again. `origin` (`peftbench.methods._saved_files.describe`) says what made it, in a file
    beside. Configuration files are not counted: they name the base, which is no cost of the method. Methods of the
    `peft` library write its format, full fine-tuning that of `transformers`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapted.save is not None:
        adapted.save(folder)
    else:
        named = adapted.model.named_parameters()
        save_file({n: p.detach().contiguous() for n, p in named if p.requires_grad}, folder / TRAINED)
    if origin is not None:
        (folder / ORIGIN).write_text(json.dumps(origin, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    size = weight_bytes(folder)
    if not keep:
        shutil.rmtree(folder)
    return size


def load_checkpoint(base: Base, method: Choice, folder: Path, seed: int = 0) -> Adapted:
    """The adapted model that `save` wrote, on its base, ready to answer. `seed`: that of the run, which placed it.

    Raises `UserError` if what was saved is not what the method trains with these arguments and this seed.
    """
    return put_on(base.model, folder, method, seed)
