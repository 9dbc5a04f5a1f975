"""Merge adapters of the `peft` library into the base weights, and undo it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peftbench.core.registry import UserError, error_line

KNOWN_WARNINGS = (
    "Unsupported layer type",
    "`is_gradient_checkpointing` is deprecated",
    "fan_in_fan_out is set to False",
    "Merge lora module to",
    "The PEFT config's `base_model_name_or_path` was renamed",
)


@contextmanager
def known_warnings_ignored() -> Iterator[None]:
    """Suppress warnings that do not apply: layers are checked here, and merged weights are restored from copies."""
    with warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        yield


@contextmanager
def folded(peft_model: Any) -> Iterator[None]:
    """Merge the adapter. Raises `UserError` with the reason if the library refuses.

    The caller restores the weights: the library's unmerging subtracts, which rounds, and some types do not have it.
    """
    with known_warnings_ignored():
        try:
            peft_model.merge_adapter()
        except Exception as error:
            raise UserError(f"peft does not merge it: {error_line(error)}") from error
    yield


@contextmanager
def merged_with_loss(peft_model: Any) -> Iterator[None]:
    """Merge into quantised weights; on exit, restore the weights and attributes that merging replaces."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in peft_model.modules() if isinstance(module, BaseTunerLayer)]
    hosts = [layer.get_base_layer() for layer in layers]
    # An 8-bit layer also has a state, and a 4-bit layer an attribute that merging sets.
    parts_of = [(host.weight, getattr(host, "state", None), host) for host in hosts]
    marked = [[each for each in parts if each is not None] for parts in parts_of]
    kept = [[(each, dict(vars(each))) for each in parts] for parts in marked]
    try:
        with known_warnings_ignored():
            peft_model.merge_adapter()
        yield
    finally:
        for host, parts in zip(hosts, kept, strict=True):
            host.weight = parts[0][0]
            for each, marks in parts:
                vars(each).update(marks)
        for layer in layers:
            layer.merged_adapters.clear()
