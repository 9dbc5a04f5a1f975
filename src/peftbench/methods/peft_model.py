"""From a configuration of the `peft` library to an `Adapted`."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from peftbench.methods import Adapted
from peftbench.methods.in_place import put_back

PREFIX_TYPES = ("PREFIX_TUNING", "CARTRIDGE")
"""Prompt-learning types whose prompt is a key–value cache, not embeddings."""

CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How the starts of LoRA are called that change the weights of the base, which the library does not undo."""


def with_peft(model: Any, config: Any, mergeable: bool = False) -> Adapted:
    """Apply a `peft` configuration. `mergeable`: the library can fold this type into the base weights.

    Prompt types are called through the base network, with the prompt as a value: `PeftModel.generate` puts virtual
    tokens before the padding of left-padded batches, which gives wrong answers.
    """
    from peft import TaskType, get_peft_model

    config.task_type = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    undo = _base_keeper(model, config)
    with _known_warnings_ignored():
        try:
            return _adapted(get_peft_model(model, config), mergeable, undo)
        except Exception:
            undo()
            _clean(model)
            raise


def of_decoder(facts: Any) -> dict[str, Any]:
    """The measures of a prefix on an encoder–decoder, by its configuration; of other models the library knows them.

    The prefix is the decoder's; the library would take its measures from the encoder and from the hidden size.
    """
    if not facts.is_encoder_decoder:
        return {}
    heads = getattr(facts, "decoder_attention_heads", None) or facts.num_heads
    layers = getattr(facts, "num_decoder_layers", None) or facts.decoder_layers
    width = heads * getattr(facts, "d_kv", facts.d_model // heads)
    return {"num_layers": layers, "num_attention_heads": heads, "token_dim": width}


def from_files(model: Any, folder: Path) -> Adapted:
    """An adapter in the library's format, put on its base to answer."""
    from peft import PeftConfig, PeftModel

    undo = _base_keeper(model, PeftConfig.from_pretrained(str(folder)))
    with _known_warnings_ignored():
        return _adapted(PeftModel.from_pretrained(model, folder).eval(), False, undo)


def _base_keeper(model: Any, config: Any) -> Callable[[], None]:
    """What gives the base its own weights back, if a configuration changes those of the layers it is put on.

    Such an adapter is saved as it is: the library changes the base in the same way when it is loaded, which is exact in
    every precision. Its conversion to a plain LoRA of twice the rank is not, as it is made for the unrounded base.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    start = getattr(config, "init_lora_weights", None)
    if not (isinstance(start, str) and start.startswith(CHANGES_BASE) and config.target_modules):
        return put_back(())
    named = model.named_modules()
    hosts = [module for name, module in named if name and check_target_module_exists(config, name)]
    return put_back(host.weight for host in hosts if hasattr(host, "weight"))


@contextmanager
def _known_warnings_ignored() -> Iterator[None]:
    """Without what does not apply: which layers are meant is decided here, and unmerging puts copies back."""
    with warnings.catch_warnings():
        for message in ("Unsupported layer type", "fan_in_fan_out is set to False", "Unmerge result can be inaccurate"):
            warnings.filterwarnings("ignore", message)
        yield


def _adapted(peft_model: Any, mergeable: bool, undo: Callable[[], None]) -> Adapted:
    config = peft_model.active_peft_config
    network = peft_model.get_base_model()
    adapted = Adapted(peft_model, network, save=peft_model.save_pretrained, remove=partial(_remove, peft_model, undo))
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
    """The virtual tokens of the input. Of a type that has some for each of several tasks, those of the first task.

    The library makes more for an encoder–decoder, by default, than it then uses.
    """
    import torch

    first = torch.zeros(batch, dtype=torch.long, device=peft_model.device)
    return peft_model.get_prompt(batch, task_ids=first)[:, : peft_model.active_peft_config.num_virtual_tokens]


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


def _remove(peft_model: Any, undo: Callable[[], None]) -> None:
    if hasattr(type(peft_model.base_model), "unload"):
        peft_model.unload()
    undo()
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
    weights = [weight for layer in layers for weight in layer.get_base_layer().parameters()]
    # The tensor as well as its values: another one may lie otherwise in memory, and products with it round otherwise.
    kept = [(weight, weight.data, weight.detach().clone()) for weight in weights]
    try:
        peft_model.merge_adapter()
        yield
    finally:
        try:
            with _known_warnings_ignored():
                peft_model.unmerge_adapter()
        finally:
            with torch.no_grad():
                for weight, held, copy in kept:
                    weight.data = held.copy_(copy)
