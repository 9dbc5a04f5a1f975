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
MERGEABLE_TYPES = ("LORA", "IA3", "LN_TUNING")
"""Types that are answered merged when they come from files, as those of a run are."""


KNOWN_WARNINGS = (
    "Unsupported layer type",
    "fan_in_fan_out is set to False",
    "Unmerge result can be inaccurate",
    "Merge lora module to",
    "The PEFT config's `base_model_name_or_path` was renamed",
)


def with_peft(model: Any, config: Any, mergeable: bool = False) -> Adapted:
    """Apply a `peft` configuration. `mergeable`: the library can fold this type into the base weights.

    Prompt types are called through the base network, with the prompt as a value: `PeftModel.generate` puts virtual
    tokens before the padding of left-padded batches, which gives wrong answers.
    """
    from peft import TaskType, get_peft_model

    config.task_type = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    with _known_warnings_ignored():
        return _adapted(get_peft_model(model, config), mergeable)


def from_files(model: Any, folder: Path, meta: bool = False) -> Adapted:
    """An adapter in the library's format, put on its base to answer; on meta tensors, as it was when it was trained.

    Raises `ValueError` for weights that are missing or left over.
    """
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    config = PeftConfig.from_pretrained(str(folder))
    mergeable = config.peft_type in MERGEABLE_TYPES
    if meta:
        config.inference_mode = False
        if hasattr(config, "init_lora_weights"):
            # Its start is of no matter, and may need the weights of the base.
            config.init_lora_weights = True
        return with_peft(model, config, mergeable)
    with _known_warnings_ignored():
        warnings.filterwarnings("error", "Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=not config.is_prompt_learning)
        except UserWarning as problem:
            raise ValueError(problem) from problem
        if not config.is_prompt_learning:
            # Again as float32: in a base of lower precision the first time has rounded what copies its layers.
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
            found: Any = set_peft_model_state_dict(adapted, load_peft_weights(str(folder)))
            if left_over := found.unexpected_keys:
                raise ValueError(f"{len(left_over)} of its tensors have no place there, as {left_over[0]}")
        return _adapted(adapted.eval(), mergeable)


@contextmanager
def _known_warnings_ignored() -> Iterator[None]:
    """Without what does not apply: layers and bases are checked here, and unmerging puts copies back."""
    with warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        yield


def _adapted(peft_model: Any, mergeable: bool) -> Adapted:
    config = peft_model.active_peft_config
    network = peft_model.get_base_model()
    adapted = Adapted(peft_model, network, save=partial(_save, peft_model), remove=partial(_remove, peft_model))
    if not config.is_prompt_learning:
        # Quantised weights cannot hold the sum: they would be quantised anew.
        if not getattr(network, "is_quantized", False):
            adapted.merge = partial(_merged, peft_model) if mergeable else None
        elif config.peft_type == "LORA":
            adapted.lossy_merge = partial(_merged_with_loss, peft_model)
    elif config.peft_type in PREFIX_TYPES:
        adapted.prefix = peft_model.get_prompt
    else:
        adapted.soft_prompt = peft_model.get_prompt
    return adapted


def _save(peft_model: Any, folder: Path) -> None:
    # Embeddings are not changed; to find out, the library would ask the Hub for the base's configuration.
    peft_model.save_pretrained(folder, save_embedding_layers=False)


def _remove(peft_model: Any) -> None:
    network = peft_model.get_base_model()
    if getattr(network, "is_quantized", False):
        _unwrap(network)
    elif not peft_model.active_peft_config.is_prompt_learning:
        peft_model.unload()
    # What get_peft_model leaves behind on the base.
    for name in ("peft_config", "_hf_peft_config_loaded", "prepare_inputs_for_generation"):
        network.__dict__.pop(name, None)


def _unwrap(network: Any) -> None:
    """Put the layers back that tuners have wrapped; of a quantised base the library's IA3 refuses to."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in [pair for pair in network.named_modules() if isinstance(pair[1], BaseTunerLayer)]:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, module.get_base_layer())


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


@contextmanager
def _merged_with_loss(peft_model: Any) -> Iterator[None]:
    """Merge into quantised weights, then give the layers their old ones back, which merging replaces and marks."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in peft_model.modules() if isinstance(module, BaseTunerLayer)]
    hosts = [layer.get_base_layer() for layer in layers]
    # A layer of eight bits has a state beside its weight.
    marked = [[each for each in (host.weight, getattr(host, "state", None)) if each is not None] for host in hosts]
    kept = [[(each, dict(vars(each))) for each in parts] for parts in marked]
    try:
        with _known_warnings_ignored():
            peft_model.merge_adapter()
        yield
    finally:
        for host, parts in zip(hosts, kept, strict=True):
            host.weight = parts[0][0]
            for each, marks in parts:
                vars(each).update(marks)
        for layer in layers:
            layer.merged_adapters.clear()
