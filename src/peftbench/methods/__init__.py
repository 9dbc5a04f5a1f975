"""Methods: ways to adapt a loaded model to a task. One decorated function per file.

A method takes the base model and keyword arguments, and returns an `Adapted`: the model to train and everything that
the training loop needs. The loop does not depend on method names. Importing a method's file must not import torch:
heavy imports are inside its function.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from peftbench.core.registry import Family, Registry, Unit, UserError
from peftbench.core.spec import Choice
from peftbench.models.saved_model_files import identity

# bitsandbytes warns about missing kernels and type conversions. peft imports it if it is installed, and this module is
# imported before peft.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@dataclass(frozen=True)
class TrainingContext:
    """Facts about the coming training, for `Adapted.prepare`.

    `steps`: optimiser steps of the whole training. `batches()`: the rows of each step, in order, as arguments of a
    `transformers` model: `input_ids`, `attention_mask` and `labels` [rows, length], on the network's device; the label
    -100 is ignored. After forward and backward passes on them, the method must clear what they changed (gradients).
    """

    steps: int
    batches: Callable[[], Iterator[dict[str, Any]]]


@dataclass
class Adapted:
    """A model prepared for training. Only parameters that require gradients are trained.

    `model` contains the parameters; `network` is the module that is called with tokens or embeddings (the base model,
    with layers added or changed). The other fields are optional:

    - `soft_prompt(batch)`: embeddings [batch, virtual tokens, hidden] put before those of the input (of the encoder).
    - `prefix(batch)`: a key–value cache of virtual tokens before the input (of the decoder) in every layer.
    - `merge()`: a context in which the adapter is merged into the base weights. Every run checks that the merged model
      computes the same function; if not, or if this raises, it answers unmerged. The caller restores tensors and
      attributes of modules bit for bit; the context must restore everything else on exit.
    - `lossy_merge()`: the same with rounding, as into quantised weights; it restores everything on exit. It is only
      measured, when a run requests it, and never used for answers.
    - `prepare(ahead)`: called once before training, for what depends on the data or the number of steps. It counts as
      training time. It may replace parameters, but not change how many are trained.
    - `penalty()`: a term added to the loss of each step, but not to the reported loss.
    - `after_step(step)`: called after each optimiser step (from 1), before gradients are cleared.
    - `param_groups(learning_rate)`: optimiser groups, for methods with several learning rates.
    - `save(directory)`: writes the adapter files; by default the trained tensors as safetensors.
    - `places`: full names of the modules and weights of the base that are to be trained or adapted. A run compares them
      with what is trained, and with the arguments `modules` and `layers` if the method has them.
    - `remove()`: restores the base model. If the base differs afterwards, it is loaded again.
    - `notes`: messages for the user on how the method was applied.
    """

    model: Any
    network: Any
    soft_prompt: Callable[[int], Any] | None = None
    prefix: Callable[[int], Any] | None = None
    merge: Callable[[], AbstractContextManager[Any]] | None = None
    lossy_merge: Callable[[], AbstractContextManager[Any]] | None = None
    prepare: Callable[[TrainingContext], None] | None = None
    penalty: Callable[[], Any] | None = None
    after_step: Callable[[int], None] | None = None
    param_groups: Callable[[float], list[dict[str, Any]]] | None = None
    save: Callable[[Path], None] | None = None
    places: Sequence[str] | None = None
    remove: Callable[[], None] | None = None
    notes: tuple[str, ...] = ()

    @property
    def virtual_tokens(self) -> int:
        """Number of virtual tokens before the input."""
        if self.soft_prompt is not None:
            return int(self.soft_prompt(1).shape[1])
        return int(self.prefix(1).get_seq_length()) if self.prefix is not None else 0


@dataclass(frozen=True)
class MethodFacts:
    """Facts of a method that are known without loading a model.

    `learning_rate`: default for models of a billion parameters or more (AdamW); grids for small models set other rates.
    `trains`: whether it trains anything. `gradient_checkpointing`, `quantised`: why the method does not support
    checkpointing or a quantised base; empty if it does. `quantise`: the quantisation of the base that it requires.
    `folder`: the argument with the path of a folder; a run's id depends on the folder's content, not on the path.
    """

    learning_rate: float | None
    paper: str = ""
    version: int | str = 1
    trains: bool = True
    gradient_checkpointing: str = ""
    quantised: str = ""
    quantise: Literal["nf4", "int8"] | None = None
    folder: str = ""


METHODS: Registry[MethodFacts] = Registry("method", "peftbench.methods", separator="-")
Method = Unit[MethodFacts]
FOUR_BIT = "4-bit base: "
"""Prefix of the reason, in the capabilities of a method, why it does not work on a 4-bit base."""
Adapt = Callable[..., Adapted]


def given(choice: Choice) -> dict[str, Any]:
    """Return the arguments of a method's function. Raises `UserError` if the content of a folder argument changed."""
    key = METHODS[choice.name].facts.folder
    if not key:
        return choice.arguments
    if identity(Path(choice.place)) != choice.arguments[key]:
        raise UserError(f"{choice.place} has changed since the command was given: give it again")
    return choice.arguments | {key: choice.place}


def method(**facts: Any) -> Callable[[Adapt], Adapt]:
    """Register a method; the keywords are the fields of `MethodFacts`."""

    def register(function: Adapt) -> Adapt:
        METHODS.add(function, MethodFacts(**facts))
        return function

    return register


def family(key: str, names: Callable[[], list[str]]) -> Callable[[Callable[[str], Method]], Callable[[str], Method]]:
    """Register a function that creates methods, as a family with the function's name; see `Family`."""

    def register(function: Callable[[str], Method]) -> Callable[[str], Method]:
        METHODS.add_family(Family(function.__name__, key, names, cache(function)))
        return function

    return register


@cache
def capabilities() -> dict[str, dict[str, Any]]:
    """Return the capabilities of each method, by name, as measured by `peftbench.checks.method_capabilities`."""
    found: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "capabilities.json").read_text())
    return found
