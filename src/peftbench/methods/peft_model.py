"""From a configuration of the `peft` library to an `Adapted`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from peftbench.methods import Adapted

PREFIX_TYPES = ("PREFIX_TUNING", "CARTRIDGE")
"""Prompt-learning types whose prompt is a key–value cache, not embeddings."""


def with_peft(model: Any, config: Any, mergeable: bool = False) -> Adapted:
    """Apply a `peft` configuration. `mergeable`: the library can fold this type into the base weights.

    Prompt types are called through the base network, with the prompt as a value: `PeftModel.generate` puts virtual
    tokens before the padding of left-padded batches, which gives wrong answers.
    """
    from peft import TaskType, get_peft_model

    config.task_type = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    with _known_warnings_ignored():
        return _adapted(get_peft_model(model, config), mergeable)


def from_files(model: Any, folder: Path) -> Adapted:
    """An adapter in the library's format, put on its base to answer."""
    from peft import PeftModel

    with _known_warnings_ignored():
        return _adapted(PeftModel.from_pretrained(model, folder).eval(), mergeable=False)


@contextmanager
def _known_warnings_ignored() -> Iterator[None]:
    """Without what does not apply: which layers are meant is decided here, and unmerging puts copies back."""
    with warnings.catch_warnings():
        for message in ("Unsupported layer type", "fan_in_fan_out is set to False", "Unmerge result can be inaccurate"):
            warnings.filterwarnings("ignore", message)
        yield


def _adapted(peft_model: Any, mergeable: bool) -> Adapted:
    config = peft_model.active_peft_config
    network = peft_model.get_base_model()
    adapted = Adapted(peft_model, network, save=peft_model.save_pretrained, remove=partial(_remove, peft_model))
    if not config.is_prompt_learning:
        adapted.merge = partial(_merged, peft_model) if mergeable else None
    elif config.peft_type in PREFIX_TYPES:
        adapted.prefix = peft_model.get_prompt
    else:
        adapted.soft_prompt = partial(_soft_prompt, peft_model)
    return adapted


def _soft_prompt(peft_model: Any, batch: int) -> Any:
    """The virtual tokens of the input. The library makes more for an encoder–decoder, by default, than it then uses."""
    return peft_model.get_prompt(batch)[:, : peft_model.active_peft_config.num_virtual_tokens]


def _remove(peft_model: Any) -> None:
    network = peft_model.get_base_model()
    if not peft_model.active_peft_config.is_prompt_learning:
        peft_model.unload()
    # What get_peft_model leaves behind on the base.
    for name in ("peft_config", "_hf_peft_config_loaded", "prepare_inputs_for_generation"):
        network.__dict__.pop(name, None)


@contextmanager
def _merged(peft_model: Any) -> Iterator[None]:
    """Merge, then put copies of the weights back: unmerging by subtraction would leave rounding behind."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in peft_model.modules() if isinstance(module, BaseTunerLayer)]
    kept = [(weight, weight.detach().clone()) for layer in layers for weight in layer.get_base_layer().parameters()]
    peft_model.merge_adapter()
    try:
        yield
    finally:
        with _known_warnings_ignored():
            peft_model.unmerge_adapter()
        with torch.no_grad():
            for weight, copy in kept:
                weight.copy_(copy)
