"""Methods: ways to adapt a loaded model to a task. One decorated function per file.

A method takes the base model and its own keyword arguments, and returns an `Adapted`: the model to train, and what the
loop needs to know of it, as values. The loop knows no method by name. A method's file is imported without torch: it
imports what it needs inside its function.
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

# It warns of kernels that it would like to have, and of types that it converts. peft imports it wherever it is there,
# and nothing of ours imports peft before this module.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@dataclass(frozen=True)
class TrainingContext:
    """What lies before a method when its training begins.

    `steps`: optimiser steps of the whole training. `batches()`: the rows of each step, in their order, as the library
    `transformers` takes them: `input_ids`, `attention_mask` and `labels` [rows, length], on the network's device, where
    a label of -100 is none. They are for forward and backward passes; what these change is the method's to clear.
    """

    steps: int
    batches: Callable[[], Iterator[dict[str, Any]]]


@dataclass
class Adapted:
    """A model made ready for training. Its parameters that require gradients are trained, all others stay.

    `model` holds the parameters; `network` is the module that is called with tokens or embeddings (the base model, with
    layers added or changed in it). The rest is optional:

    - `soft_prompt(batch)`: embeddings [batch, virtual tokens, hidden] put before those of the input (the encoder's).
    - `prefix(batch)`: a key–value cache of virtual tokens that stand before the input (the decoder's) in every layer.
    - `merge()`: a context in which the adapter is folded into the base weights. Every run proves on its trained model
      that the merged one computes the same function, and answers unmerged where it does not, or where this raises.
      Tensors and attributes of modules are put back bit for bit by the caller; anything else when the context is left.
    - `lossy_merge()`: the same where merging rounds, as into quantised weights, and all is put back when it is left. It
      is measured when a run asks for it, and never used for answers.
    - `prepare(ahead)`: called once before training, for what depends on the data or on the number of steps. Its time is
      training time. It may replace parameters, but not their number.
    - `penalty()`: a term that is added to the loss of each step, and is no part of the loss that is reported.
    - `after_step(step)`: called after each optimiser step, counted from 1, while its gradients are still there.
    - `param_groups(learning_rate)`: optimiser groups, for methods that train parts at different rates.
    - `save(directory)`: writes the files that must be kept; by default the trained tensors as safetensors.
    - `places`: full names of the base's modules and weights that it is meant to train or to adapt. What is trained is
      compared with them before a run, and with the arguments `modules` and `layers` where the method takes those.
    - `remove()`: takes the method off, so that the base is as it was. A base that is not is loaded anew.
    - `notes`: what the user should know of how the method was applied.
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
        """How many virtual tokens stand before the input."""
        if self.soft_prompt is not None:
            return int(self.soft_prompt(1).shape[1])
        return int(self.prefix(1).get_seq_length()) if self.prefix is not None else 0


@dataclass(frozen=True)
class MethodFacts:
    """The light facts of a method.

    `learning_rate` is its default for language models of a billion parameters and more (AdamW); grids for small models
    set their own. `trains`: whether it trains anything. `gradient_checkpointing`: empty, or why it cannot be used.
    `quantised`: empty, or why it cannot be used on a quantised base; `quantise`: how the base is quantised for it.
    `folder`: the argument that names a folder of files, whose content then stands for its path in a run's id.
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
"""How the reason begins, among those of its capabilities, why a method does not work there."""
Adapt = Callable[..., Adapted]


def given(choice: Choice) -> dict[str, Any]:
    """The arguments of a method's function. Raises `UserError` if the folder among them is not as it was."""
    key = METHODS[choice.name].facts.folder
    if not key:
        return choice.arguments
    if identity(Path(choice.place)) != choice.arguments[key]:
        raise UserError(f"{choice.place} has changed since the command was given: give it again")
    return choice.arguments | {key: choice.place}


def method(**facts: Any) -> Callable[[Adapt], Adapt]:
    """Register a method; the keywords are those of `MethodFacts`."""

    def register(function: Adapt) -> Adapt:
        METHODS.add(function, MethodFacts(**facts))
        return function

    return register


def family(key: str, names: Callable[[], list[str]]) -> Callable[[Callable[[str], Method]], Callable[[str], Method]]:
    """Register a function that makes methods, as members of a family of its own name; see `Family`."""

    def register(function: Callable[[str], Method]) -> Callable[[str], Method]:
        METHODS.add_family(Family(function.__name__, key, names, cache(function)))
        return function

    return register


@cache
def capabilities() -> dict[str, dict[str, Any]]:
    """What each method can do, by name, as `peftbench.checks.capabilities` measured it."""
    found: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "capabilities.json").read_text())
    return found
