"""Load models from files; missing and unexpected weights are errors."""

import re
from collections.abc import Collection
from typing import Any

from peftbench.core import device
from peftbench.core.registry import UserError, error_line

STALE = re.compile(r"(^|\.)(masked_bias|attn\.bias|attention\.bias|causal_mask|inv_freq|position_ids|version)$")
"""Masks, positions and versions that older releases of `transformers` saved with the weights."""
SHOWN = 3
"""Maximum number of weight names in a message."""
PEFT = ("base_model.model.", ".base_layer.", ".lora_")
WRAPPERS = ("module.", "_orig_mod.")
"""Marks in names of weights that were saved from a `peft` model or another wrapper."""


def read_network(kind: Any, source: Any, config: Any, called: str, **asked: Any) -> Any:
    """Load the network of a directory or Hub id with configuration `config` by the `transformers` class `kind`.

    `asked`: arguments of `from_pretrained`. Raises `UserError` if files cannot be read, and for missing weights, wrong
    shapes and unexpected weights, except tied weights, weights that the architecture declares optional, and parts of a
    multimodal model that its language model does not use.
    """
    try:
        network, told = kind.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **asked
        )
    except Exception as error:
        if device.is_out_of_memory(error) or device.has_failed(error):
            raise
        raise cannot_load(called, error) from error
    without_place = [name for name in told["unexpected_keys"] if not _left_out(network, config, name)]
    wrong = {
        "missing from its files": told["missing_keys"],
        "of another shape in its files": [f"{name} {list(shape)}" for name, shape, _ in told["mismatched_keys"]],
        "without a place in it": without_place,
    }
    if found := [f"{len(names)} weights {how}: {_some(names)}" for how, names in wrong.items() if names]:
        raise UserError(f"{called}: {'; '.join(found)}. {_way_out(network, config, without_place)}")
    return network


def cannot_load(called: str, error: Exception) -> UserError:
    """Return a one-line error for a model that a library cannot load."""
    if "trust_remote_code" in str(error):
        return UserError(f"{called}: it needs code of its own; only architectures that transformers has are supported")
    # Messages for users are sufficient alone; for other errors the exception type is shown too.
    known = isinstance(error, (OSError, ValueError, ImportError)) and str(error).strip()
    return UserError(
        f"{called}: cannot be loaded: {error_line(error).partition(': ')[2] if known else error_line(error)}"
    )


def _some(names: Collection[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(sorted(names)[:SHOWN])}{rest}"


def _left_out(network: Any, config: Any, name: str) -> bool:
    """Return True if an unexpected weight may be ignored: a stale mask, or a non-text part of a multimodal model."""
    if STALE.search(name):
        return True
    if config.get_text_config() is config:
        return False
    # A weight belongs to the network if the first part of its name is an attribute of the network or of its base model.
    inside = name.removeprefix(f"{network.base_model_prefix}.")
    return not hasattr(network, name.split(".")[0]) and not hasattr(network.base_model, inside.split(".")[0])


def _way_out(network: Any, config: Any, without_place: Collection[str]) -> str:
    if any(mark in name for name in without_place for mark in PEFT):
        return "It was saved from within peft: save it by merge_and_unload().save_pretrained()"
    if any(name.startswith(WRAPPERS) for name in without_place):
        return "It was saved from within a wrapper: save the model that is in it (model.module or model._orig_mod)"
    built, saved_as = type(network).__name__, (config.architectures or [None])[0]
    if saved_as not in (None, built):
        return f"It was saved as {saved_as}, which is no {built}: give a language model"
    return "Save or download the whole model again"
