from pathlib import Path
from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._saved_files import put_on


@method(learning_rate=None, trains=False, folder="folder")
def saved(model: Any, *, folder: str, any_base: bool = False) -> Adapted:
    """A model trained elsewhere, from its files: an adapter in the format of `peft`, an adapter kept by a run of ours,
    or a fully trained model. `any_base`: do not ask whether it was made for this base.
    """
    return put_on(model, Path(folder), any_base=any_base)
