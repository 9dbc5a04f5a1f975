"""Adapters of the `peft` library folded into the weights of their base, and taken out again."""

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
    """Without what does not apply: layers and bases are checked here, and merged weights are put back from copies."""
    with warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        yield


@contextmanager
def folded(peft_model: Any) -> Iterator[None]:
    """Merge by the library, which may refuse: raises `UserError` with its reason.

    Unmerging, which subtracts and rounds, and which some types lack, is left out: the caller puts everything back.
    """
    with known_warnings_ignored():
        try:
            peft_model.merge_adapter()
        except Exception as error:
            raise UserError(f"peft does not merge it: {error_line(error)}") from error
    yield


@contextmanager
def merged_with_loss(peft_model: Any) -> Iterator[None]:
    """Merge into quantised weights, then give the layers their old ones back, which merging replaces and marks."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in peft_model.modules() if isinstance(module, BaseTunerLayer)]
    hosts = [layer.get_base_layer() for layer in layers]
    # A layer of eight bits has a state beside its weight, and one of four bits an attribute that merging sets anew.
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
