"""Parameters and floating-point operations of a method on a model, from its configuration alone, on meta tensors."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, PreTrainedConfig

from peftbench.engine.load import Base
from peftbench.engine.quantise import numbers
from peftbench.engine.shapes import head_apart, shape
from peftbench.methods import METHODS, Adapted, given
from peftbench.methods.files import weight_bytes
from peftbench.methods.peft_model import with_peft
from peftbench.models import find
from peftbench.registry import UserError, in_a_line
from peftbench.spec import Choice

LENGTH = 512
"""Tokens of the forward pass whose operations are counted, batch 1: the input of PEFT-Bench (arXiv 2511.21285)."""


@dataclass(frozen=True)
class Estimate:
    """What a method costs on a model. FLOPs count a multiply–add as two and element-wise work as none."""

    trainable_parameters: int
    total_parameters: int
    forward_flops_512: int
    extra_forward_flops_512: int


def estimate(model: Any, method: Any = "none", **arguments: Any) -> Estimate:
    """Exact parameters, and FLOPs of a forward pass of 512 tokens, without weights.

    `model`: an alias, a directory, a path of a config.json, a Hub id, or a `transformers` configuration. `method`: a
    name, with its `arguments`, or a configuration of `peft`, or that as a dictionary with `peft_type`.
    Raises `UserError` for a model or method that is not known, or a method that trains nothing.
    """
    config = configuration(model)
    adapted = on_meta(config, method, arguments)
    parameters = dict(adapted.model.named_parameters())
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    if not trainable and method != "none":
        raise UserError(f"method {method} would train nothing on this model")
    flops, base = forward_flops(adapted), base_flops(config)
    return Estimate(
        trainable_parameters=trainable,
        total_parameters=sum(p.numel() for p in parameters.values()),
        forward_flops_512=flops,
        extra_forward_flops_512=flops - base,
    )


def configuration(model: Any) -> Any:
    """The configuration of a model, named as for `estimate`. Raises `UserError` if it cannot be read."""
    if isinstance(model, PreTrainedConfig):
        return model
    if str(model).endswith("config.json"):
        if not Path(model).is_file():
            raise UserError(f"model {model}: no such file")
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    ref = find(str(model))
    if ref.config is not None:
        facts = dict(ref.config)
        return AutoConfig.for_model(facts.pop("model_type"), **facts)
    try:
        return AutoConfig.from_pretrained(ref.source, revision=ref.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"model {model}: its configuration cannot be read: {str(error).splitlines()[0]}") from error


def on_meta(
    config: PreTrainedConfig, method: Any, arguments: dict[str, Any], dtype: torch.dtype = torch.float32
) -> Adapted:
    """A method on a model of a configuration, without values. `method` is as for `estimate`."""
    network = _on_meta(config, dtype)
    if isinstance(method, str):
        unit = METHODS[method]
        with torch.device("meta"):
            adapted: Adapted = unit.function(network, **unit.check(arguments))
        return adapted
    from peft import PeftConfig, get_peft_config

    asked = get_peft_config(dict(method)) if isinstance(method, dict) else method
    if not isinstance(asked, PeftConfig):
        raise UserError(f"method {method!r}: neither a name, a peft configuration nor its dictionary")
    with torch.device("meta"):
        return with_peft(network, asked)


def _on_meta(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> Any:
    with torch.device("meta"):
        try:
            network = shape(config).auto.from_config(config, dtype=dtype)
        except ValueError as error:
            raise UserError(
                f"a model of type {config.model_type} is no language model: {error}".split("\n")[0]
            ) from error
        if head_apart(config):
            head = network.get_output_embeddings()
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return network.requires_grad_(False).eval()


def forward_flops(adapted: Adapted) -> int:
    """Operations of a forward pass, counted as it runs: on meta tensors, or on a loaded model where those do not do.

    Attention is computed by matrix products: the counter does not know the fused kernel of a CPU.
    """
    adapted.model.eval()
    plain, trained = sdpa_kernel(SDPBackend.MATH), [p for p in adapted.model.parameters() if p.requires_grad]
    try:
        # The counter's hooks stumble over parameters that a module hands to another.
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.no_grad(), torch.random.fork_rng(), plain, FlopCounterMode(display=False) as counter:
            shape(adapted.network.config).pass_over(adapted, LENGTH)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops())


def sizes(base: Base, adapted: Adapted, method: Choice) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """What a method on its base costs before any training, by the names of `Costs`; and what is to be said of it.

    Parameters are counted, quantised ones as the numbers they stand for. Bytes are those of the files it came from.
    """
    known = _known(base.config.to_json_string(use_diff=False), method.model_dump_json())
    parameters = list(adapted.model.parameters())
    found: dict[str, int | None] = {
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "total_parameters": sum(map(numbers, parameters)),
    }
    if method.place:
        found["adapter_bytes"] = weight_bytes(Path(method.place))
        if isinstance(known, Estimate):
            # Files may hold less than was trained, as of a prompt that an encoder made.
            found |= {name: getattr(known, name) for name in ("trainable_parameters", "total_parameters")}
    flops = extra = None
    notes: tuple[str, ...] = ()
    try:
        flops, how = operations(adapted, base, known)
        extra = 0 if adapted.merge is not None else flops - base_flops(base.config)
        notes = (how,) if how else ()
    except Exception as problem:
        # A method for which they cannot be counted can still be run.
        notes = (f"floating-point operations cannot be counted: {in_a_line(problem)}",)
    return found | {"forward_flops_512": flops, "extra_forward_flops_512": extra}, notes


def operations(adapted: Adapted, base: Base, known: "Estimate | str") -> tuple[int, str]:
    """Operations of a forward pass of a method that is on its base; and why they were counted there, if they were.

    `known` is what meta tensors tell, or why they tell nothing. Raises `ValueError` where they tell nothing and the
    base is quantised: the counter cannot see into the kernels of such a base.
    """
    if isinstance(known, Estimate):
        return known.forward_flops_512, ""
    if base.quantise:
        raise ValueError(f"the weights of this base are quantised, and without weights: {known}")
    with torch.autocast(base.model.device.type, torch.bfloat16, enabled=base.dtype == torch.bfloat16):
        return forward_flops(adapted), f"floating-point operations were counted on the loaded model: {known}"


@lru_cache(maxsize=256)
def _known(config_json: str, method_json: str) -> Estimate | str:
    """What meta tensors tell; for a method that needs tensors with values, the reason that they tell nothing."""
    facts, method = json.loads(config_json), Choice.model_validate_json(method_json)
    try:
        config = AutoConfig.for_model(facts.pop("model_type"), **facts)
        return estimate(config, method.name, **given(method))
    except Exception as problem:
        return in_a_line(problem)


def base_flops(config: PreTrainedConfig) -> int:
    """Operations of a forward pass of the untouched model."""
    return _base_flops(config.to_json_string(use_diff=False))


@lru_cache(maxsize=16)
def _base_flops(config_json: str) -> int:
    facts = json.loads(config_json)
    network = _on_meta(AutoConfig.for_model(facts.pop("model_type"), **facts))
    return forward_flops(Adapted(network, network))
