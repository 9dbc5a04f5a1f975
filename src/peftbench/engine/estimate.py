"""Parameters and floating-point operations of a method on a model, from its configuration alone, on meta tensors."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from peftbench.engine.forward import forward
from peftbench.methods import METHODS, Adapted, given
from peftbench.methods.files import weight_bytes
from peftbench.methods.peft_model import with_peft
from peftbench.models import find
from peftbench.registry import UserError
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
    config = _config(model)
    adapted = _adapt(config, method, arguments)
    parameters = dict(adapted.model.named_parameters())
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    if not trainable and method != "none":
        raise UserError(f"method {method} would train nothing on this model")
    flops = _forward_flops(adapted)
    return Estimate(
        trainable_parameters=trainable,
        total_parameters=sum(p.numel() for p in parameters.values()),
        forward_flops_512=flops,
        extra_forward_flops_512=flops - _base_flops(config.to_json_string(use_diff=False)),
    )


def _config(model: Any) -> Any:
    if isinstance(model, PreTrainedConfig):
        return model
    if str(model).endswith("config.json"):
        if not Path(model).is_file():
            raise UserError(f"model {model}: no such file")
        return AutoConfig.from_pretrained(model)
    ref = find(str(model))
    if ref.config is not None:
        facts = dict(ref.config)
        return AutoConfig.for_model(facts.pop("model_type"), **facts)
    try:
        return AutoConfig.from_pretrained(ref.source, revision=ref.revision)
    except (OSError, ValueError) as error:
        raise UserError(f"model {model}: its configuration cannot be read: {str(error).splitlines()[0]}") from error


def _adapt(config: PreTrainedConfig, method: Any, arguments: dict[str, Any]) -> Adapted:
    network = _on_meta(config)
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


def _on_meta(config: PreTrainedConfig) -> Any:
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return network.requires_grad_(False).eval()


def _forward_flops(adapted: Adapted) -> int:
    adapted.model.eval()
    ids = torch.zeros((1, LENGTH), dtype=torch.long, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(adapted, ids, None)
    return int(counter.get_total_flops())


@lru_cache(maxsize=16)
def _base_flops(config_json: str) -> int:
    facts = json.loads(config_json)
    network = _on_meta(AutoConfig.for_model(facts.pop("model_type"), **facts))
    return _forward_flops(Adapted(network, network))


def sizes(config: Any, adapted: Adapted, method: Choice) -> dict[str, int]:
    """Parameters of an adapted model, counted, its FLOPs, and its bytes if it came from files; names of `Costs`."""
    known = _known(config.to_json_string(use_diff=False), method.name, json.dumps(given(method)))
    parameters = list(adapted.model.parameters())
    trained, total = sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
    stored = {}
    if getattr(adapted.network, "is_quantized", False):
        # Four-bit weights lie two in a byte.
        total = known.total_parameters
    if method.place:
        # Files may hold less than was trained, as of a prompt that an encoder made.
        trained, total = known.trainable_parameters, known.total_parameters
        stored = {"adapter_bytes": weight_bytes(Path(method.place))}
    return stored | {
        "trainable_parameters": trained,
        "total_parameters": total,
        "forward_flops_512": known.forward_flops_512,
        "extra_forward_flops_512": 0 if adapted.merge is not None else known.extra_forward_flops_512,
    }


@lru_cache(maxsize=256)
def _known(config_json: str, method: str, arguments_json: str) -> Estimate:
    facts = json.loads(config_json)
    return estimate(AutoConfig.for_model(facts.pop("model_type"), **facts), method, **json.loads(arguments_json))
