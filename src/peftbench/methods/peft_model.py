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
        try:
            return _adapted(get_peft_model(model, config), mergeable)
        except Exception:
            _clean(model)
            raise


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
    if config.peft_type in PREFIX_TYPES:
        adapted.prefix = peft_model.get_prompt
    elif config.is_prompt_learning:
        adapted.soft_prompt = partial(_soft_prompt, peft_model)
    else:
        adapted.merge = partial(merged, peft_model) if mergeable else None
        # Types that give away rank, or take it back, as they train.
        adapted.after_step = getattr(peft_model.base_model, "update_and_allocate", None)
        _tell_task(peft_model.base_model)
    return adapted


def _soft_prompt(peft_model: Any, batch: int) -> Any:
    """The prompt of a type that may have one for each of several tasks; here all rows are of one task, the first."""
    import torch

    return peft_model.get_prompt(batch, task_ids=torch.zeros(batch, dtype=torch.long, device=peft_model.device))


def _tell_task(tuner: Any) -> None:
    """Layers that choose by task are told with every call that all rows are of the first."""
    if not hasattr(tuner, "_register_pre_hooks"):
        return
    import torch

    def tell(_layer: Any, args: Any, kwargs: Any) -> Any:
        return args, kwargs | {"task_ids": torch.zeros(len(args[0]), dtype=torch.long, device=args[0].device)}

    for module in tuner.modules():
        if isinstance(module, tuner.tuner_layer_cls):
            module.register_forward_pre_hook(tell, with_kwargs=True)


def _remove(peft_model: Any) -> None:
    if hasattr(type(peft_model.base_model), "unload"):
        peft_model.unload()
    _clean(peft_model.get_base_model())


def _clean(network: Any) -> None:
    """Without what get_peft_model leaves behind on the base."""
    for name in ("peft_config", "_hf_peft_config_loaded", "prepare_inputs_for_generation"):
        network.__dict__.pop(name, None)


@contextmanager
def merged(peft_model: Any) -> Iterator[None]:
    """Merge, then put copies of the weights back: unmerging by subtraction would leave rounding behind."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in peft_model.modules() if isinstance(module, BaseTunerLayer)]
    kept = [(weight, weight.detach().clone()) for layer in layers for weight in layer.get_base_layer().parameters()]
    try:
        peft_model.merge_adapter()
        yield
    finally:
        try:
            with _known_warnings_ignored():
                peft_model.unmerge_adapter()
        finally:
            with torch.no_grad():
                for weight, copy in kept:
                    weight.copy_(copy)
