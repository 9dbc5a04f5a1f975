"""Apply a configuration or a saved adapter of the `peft` library to a model."""

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError
from peftbench.methods import Adapted
from peftbench.methods._adapter_placement import names_kept, readable, targeted
from peftbench.methods._merging import folded, known_warnings_ignored, merged_with_loss
from peftbench.methods._peft_options import check_saved
from peftbench.methods._weight_restore import put_back

PREFIX_TYPES = ("PREFIX_TUNING", "CARTRIDGE")
"""Prompt-learning types whose prompt is a key–value cache, not embeddings."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""LoRA initialisations that change the base weights, which the library does not undo. KaSA does so too."""


def with_peft(model: Any, config: Any) -> Adapted:
    """Apply a `peft` configuration. Raises `UserError` with the library's reason if it rejects the model.

    For prompt types the caller runs the base network and passes the prompt: `PeftModel.generate` puts virtual tokens
    before the padding of left-padded batches, which gives wrong answers.
    """
    from peft import TaskType, get_peft_model

    _check_replication(model, config)
    config.task_type = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    undo, asked = _base_keeper(model, config), targeted(model, config)
    _tell_heads(model.config.get_text_config(), config)
    with known_warnings_ignored(), names_kept(model, config):
        try:
            adapted = _adapted(get_peft_model(model, config), undo)
        except Exception as error:
            _take_off(model, undo)
            # An operation that torch lacks for meta tensors is not a refusal by the library.
            of_torch = isinstance(error, NotImplementedError) and "meta" in str(error).lower()
            if isinstance(error, (ValueError, NotImplementedError)) and not of_torch:
                why = " ".join(str(error).split())[:300]
                raise UserError(f"peft, on this {model.config.model_type} model: {why}") from error
            raise
    adapted.places = asked
    return adapted


def _check_replication(model: Any, config: Any) -> None:
    if getattr(config, "layer_replication", None) and getattr(model.config.get_text_config(), "layer_types", None):
        raise UserError("layer_replication: peft does not repeat the layer_types of this model: it cannot be used here")


def of_decoder(facts: Any) -> dict[str, Any]:
    """Return the sizes of a prefix for an encoder–decoder; empty for other models, where the library infers them.

    The prefix is in the decoder, but the library would infer its sizes from the encoder and the hidden size. Raises
    `UserError` if the configuration has no number of heads or layers.
    """
    if not facts.is_encoder_decoder:
        return {}
    names = ("decoder_attention_heads", "num_decoder_attention_heads", "num_heads")
    heads = next((getattr(facts, name) for name in names if getattr(facts, name, None)), None)
    layers = getattr(facts, "num_decoder_layers", None) or getattr(facts, "decoder_layers", None)
    if heads is None or layers is None:
        raise UserError(f"a prefix cannot be used on {facts.model_type}: its configuration tells no heads and layers")
    width = heads * getattr(facts, "d_kv", facts.hidden_size // heads)
    return {"num_layers": layers, "num_attention_heads": heads, "token_dim": width}


def _tell_heads(facts: Any, config: Any) -> None:
    """Set the number of heads, which the library reads only under the most common names.

    A model without attention gets 1: virtual tokens at the input do not use it.
    """
    if config.is_prompt_learning and not {"num_attention_heads", "n_head", "num_heads"} & set(facts.to_dict()):
        config.num_attention_heads = config.num_attention_heads or getattr(facts, "num_attention_heads", None) or 1


def from_files(model: Any, folder: Path, meta: bool = False) -> Adapted:
    """Load an adapter in the library's format for inference; on meta tensors, in its trainable form.

    Raises `ValueError` for missing or unexpected weights.
    """
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(str(folder))
    check_saved(config)
    _check_replication(model, config)
    if meta:
        config.inference_mode = False
        if hasattr(config, "init_lora_weights"):
            # The initial values are not used, and computing them may need the base weights.
            config.init_lora_weights = True
        return with_peft(model, config)
    undo = _base_keeper(model, config)
    try:
        return _adapted(_read(model, folder, config.is_prompt_learning).eval(), undo)
    except Exception:
        _take_off(model, undo)
        raise


def _read(model: Any, folder: Path, prompts: bool) -> Any:
    """Return the library's model from files. `prompts`: a prompt-learning type, which is loaded in inference mode."""
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    with known_warnings_ignored(), names_kept(model, PeftConfig.from_pretrained(str(folder))):
        warnings.filterwarnings("error", "Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=not prompts)
        except UserWarning as problem:
            raise ValueError(problem) from problem
        if prompts:
            return adapted
        # Loading has already reduced the ranks of AdaLoRA to those of the file; the library would do it again.
        config = adapted.active_peft_config
        ranks = getattr(config, "rank_pattern", None)
        config.rank_pattern = None
        # Load again as float32: on a base of lower precision the first load rounds parameters that copy base layers.
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        found: Any = set_peft_model_state_dict(adapted, load_peft_weights(str(folder)))
        config.rank_pattern = ranks
        if left_over := found.unexpected_keys:
            raise ValueError(f"{len(left_over)} of its tensors have no place there, as {left_over[0]}")
        return adapted


def _base_keeper(model: Any, config: Any) -> Callable[[], None]:
    """Return a function that restores the base weights if the configuration changes them.

    Such an adapter is saved unconverted: on loading, the library changes the base in the same way, which is exact in
    every precision. The library's conversion to a LoRA of twice the rank assumes an unrounded base and is not exact.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    start = getattr(config, "init_lora_weights", None)
    changes = (isinstance(start, str) and start.startswith(CHANGES_BASE)) or getattr(config, "kasa_config", None)
    if not (changes and config.target_modules):
        return put_back(())
    named = model.named_modules()
    hosts = [module for name, module in named if name and check_target_module_exists(config, name)]
    return put_back(host.weight for host in hosts if hasattr(host, "weight"))


def _adapted(peft_model: Any, undo: Callable[[], None]) -> Adapted:
    config = peft_model.active_peft_config
    network = peft_model.get_base_model()
    save, remove = partial(save_peft_adapter, peft_model), partial(_remove, peft_model, undo)
    adapted = Adapted(peft_model, network, save=save, remove=remove)
    if config.peft_type in PREFIX_TYPES:
        adapted.prefix = peft_model.get_prompt
    elif config.is_prompt_learning:
        adapted.soft_prompt = partial(_soft_prompt, peft_model)
    else:
        # Merging into quantised weights would quantise the sum again.
        if not getattr(network, "is_quantized", False):
            merges = hasattr(type(peft_model.base_model), "merge_adapter")
            adapted.merge = partial(folded, peft_model) if merges else None
        elif config.peft_type == "LORA":
            adapted.lossy_merge = partial(merged_with_loss, peft_model)
        # For types that change their ranks during training.
        adapted.after_step = getattr(peft_model.base_model, "update_and_allocate", None)
        if getattr(config, "kasa_config", None):
            # The library expects the training loop to add this to the loss.
            adapted.penalty = peft_model.base_model._get_kasa_loss
        _tell_task(peft_model.base_model)
        _keep_ranks(peft_model)
    return adapted


def _keep_ranks(peft_model: Any) -> None:
    """Keep AdaLoRA's divisors constant and in float32: the library trains them, and rounds them with the base."""
    for name, parameter in peft_model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)
            parameter.data = parameter.data.float()


def _soft_prompt(peft_model: Any, batch: int) -> Any:
    """Return the virtual tokens of the input; for multi-task types, those of the first task.

    By default the library creates more for an encoder–decoder than it uses.
    """
    import torch

    first = torch.zeros(batch, dtype=torch.long, device=peft_model.device)
    return peft_model.get_prompt(batch, task_ids=first)[:, : peft_model.active_peft_config.num_virtual_tokens]


def _tell_task(tuner: Any) -> None:
    """Pass the first task's id for all rows to layers that depend on the task."""
    if not hasattr(tuner, "_register_pre_hooks"):
        return
    import torch

    def tell(_layer: Any, args: Any, kwargs: Any) -> Any:
        return args, kwargs | {"task_ids": torch.zeros(len(args[0]), dtype=torch.long, device=args[0].device)}

    for module in tuner.modules():
        if isinstance(module, tuner.tuner_layer_cls):
            module.register_forward_pre_hook(tell, with_kwargs=True)


def save_peft_adapter(peft_model: Any, folder: Path) -> None:
    """Save an adapter in the library's format."""
    # Embeddings are unchanged; to check that, the library would request the base's configuration from the Hub.
    peft_model.save_pretrained(folder, save_embedding_layers=False)
    # The library writes sets in an order that differs by process, but the adapter's id is a hash of its files.
    path = folder / "adapter_config.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    sets = [name for name, value in vars(peft_model.active_peft_config).items() if isinstance(value, set)]
    held |= {name: sorted(held[name]) for name in sets if name in held}
    path.write_text(json.dumps(held, indent=2, sort_keys=True), encoding="utf-8")
    if peft_model.active_peft_config.peft_type == "LORA":
        readable(peft_model, folder)


def _remove(peft_model: Any, undo: Callable[[], None]) -> None:
    if getattr(peft_model.get_base_model(), "is_quantized", False):
        _unwrap(peft_model.get_base_model())
    elif hasattr(type(peft_model.base_model), "unload"):
        peft_model.unload()
    undo()
    _clean(peft_model.get_base_model())


def _take_off(network: Any, undo: Callable[[], None]) -> None:
    """Remove what was applied before an error."""
    _unwrap(network)
    undo()
    _clean(network)


def _clean(network: Any) -> None:
    """Delete the attributes that `get_peft_model` leaves on the base."""
    for name in ("peft_config", "_hf_peft_config_loaded", "prepare_inputs_for_generation"):
        network.__dict__.pop(name, None)


def _unwrap(network: Any) -> None:
    """Restore the layers that tuners have wrapped; the library's IA3 refuses to on a quantised base."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in [pair for pair in network.named_modules() if isinstance(pair[1], BaseTunerLayer)]:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, module.get_base_layer())
