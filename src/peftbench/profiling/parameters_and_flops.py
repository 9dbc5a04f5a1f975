"""Parameters and FLOPs of a method on a model, from the configuration alone, on meta tensors."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, PreTrainedConfig

from peftbench.core.registry import UserError, error_line
from peftbench.core.spec import Choice
from peftbench.engine.base_model import Base
from peftbench.engine.families import head_apart, model_family
from peftbench.engine.generation import low_precision
from peftbench.engine.model_without_weights import GROUPED, GROUPED_FORMULAS, over
from peftbench.engine.quantization import numbers
from peftbench.methods import METHODS, Adapted, given
from peftbench.methods._peft_model import with_peft
from peftbench.methods._peft_types import required_arguments, types
from peftbench.models import Model, find
from peftbench.models.saved_model_files import weight_bytes
from peftbench.models.target_modules import stacks, within

LENGTH = 512
"""Tokens of the counted forward pass, with batch size 1, as in PEFT-Bench (arXiv 2511.21285)."""


@dataclass(frozen=True)
class CostEstimate:
    """Costs of a method on a model. A multiply–add is two FLOPs; element-wise operations are not counted.

    A cost is `None` if it cannot be computed without weights. `notes` give the reason and the way of counting.
    """

    trainable_parameters: int | None
    total_parameters: int | None
    forward_flops_512: int | None
    extra_forward_flops_512: int | None
    notes: tuple[str, ...] = ()


def estimate_costs(model: Any, method: Any = "none", **arguments: Any) -> CostEstimate:
    """Return exact parameter counts and the FLOPs of a forward pass of 512 tokens, without weights.

    `model`: an alias, a directory, the path of a config.json, a Hub id, or a `transformers` configuration. `method`: a
    name with its `arguments`, a `peft` configuration, or such a configuration as a dictionary with `peft_type`.
    Raises `UserError` if the model or method is unknown, or if the method cannot be applied to the model or trains
    nothing on it.
    """
    config = configuration(model)
    try:
        found = _counted([(1, on_meta(config, method, arguments))], ())
    except UserError:
        raise
    except Exception as problem:
        found = _by_layers(config, method, arguments, problem)
    if found.trainable_parameters == 0 and method != "none":
        raise UserError(f"method {method} has nothing to train on this model")
    if found.forward_flops_512 is None:
        return found
    try:
        return replace(found, extra_forward_flops_512=found.forward_flops_512 - base_flops(config))
    except Exception as problem:
        return replace(found, notes=(*found.notes, f"no operations of the base: {error_line(problem)}"))


def _counted(parts: Sequence[tuple[int, Adapted]], notes: tuple[str, ...]) -> CostEstimate:
    """Return the summed costs of networks on the meta device; `parts` has pairs of multiplicity and network."""
    trained = total = 0
    for times, adapted in parts:
        parameters = list(adapted.model.parameters())
        trained += times * sum(p.numel() for p in parameters if p.requires_grad)
        total += times * sum(p.numel() for p in parameters)
    flops: int | None = None
    try:
        flops = sum(times * forward_flops(adapted) for times, adapted in parts)
    except Exception as problem:
        # A run counts these FLOPs on the loaded model.
        notes = (*notes, f"floating-point operations cannot be counted without weights: {error_line(problem)}")
    return CostEstimate(trained, total, flops, None, notes)


def _by_layers(config: PreTrainedConfig, method: Any, arguments: dict[str, Any], why: Exception) -> CostEstimate:
    """Return the costs of a method that reads weights when applied, from networks of one and two layers per kind."""
    notes: tuple[str, ...] = (f"counted on one and two layers of each kind: {error_line(why)}",)
    try:
        return _counted(_layers(config, method, arguments), notes)
    except UserError:
        raise
    except Exception as problem:
        notes = (f"parameters cannot be counted without weights: {error_line(problem)}",)
        return CostEstimate(None, None, None, None, notes)


def _layers(config: PreTrainedConfig, method: Any, arguments: dict[str, Any]) -> list[tuple[int, Adapted]]:
    """Return networks with one layer of each kind, and with two layers of one kind, with their multiplicities.

    Layers are of the same kind if they have the same stack and weight shapes and are all chosen or all not chosen. The
    weighted sum equals the costs of the whole network if all layers of a kind add the same costs.
    """
    whole = _on_meta(config)
    every = [f"{name}." for names in stacks(whole).values() for name in names]
    chosen = set(within(whole, every, arguments.get("layers", "all")))
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for stack, names in stacks(whole).items():
        for name in names:
            shapes = tuple((key, tuple(p.shape)) for key, p in whole.get_submodule(name).named_parameters())
            kinds.setdefault((stack, f"{name}." in chosen, shapes), []).append(name)
    one, repeated = [names[0] for names in kinds.values()], [names for names in kinds.values() if len(names) > 1]

    def cut(kept: list[str]) -> Adapted:
        network = _cut(_on_meta(config), kept)
        asked = arguments
        if "layers" in arguments:
            # The layers were chosen in the whole network; their numbers in the cut network differ.
            asked = arguments | {"layers": _numbered(network, kept, chosen)}
        adapted = _put(network, method, asked)
        adapted.model.to("meta")
        return adapted

    more = [(len(names) - 1, cut([*one, names[1]])) for names in repeated]
    return [(1 - sum(times for times, _ in more), cut(one)), *more]


def _numbered(network: Any, kept: Sequence[str], chosen: set[str]) -> str:
    """Return the `layers` argument for a cut network: the kept layers that are chosen in the whole network."""
    parts = []
    for stack, names in stacks(network).items():
        start = names[0].rpartition(".")[0]
        numbers = sorted(int(name.rpartition(".")[2]) for name in kept if name.rpartition(".")[0] == start)
        asked = [str(place) for place, number in enumerate(numbers) if f"{start}.{number}." in chosen]
        parts += [f"{stack}:{','.join(asked)}"] if asked else []
    return "+".join(parts)


def _cut(network: Any, kept: Sequence[str]) -> Any:
    """Remove all layers but `kept` and give their linear layers and norms random values; return the network."""
    for names in stacks(network).values():
        start = names[0].rpartition(".")[0]
        parent, _, child = start.rpartition(".")
        layers = [network.get_submodule(name) for name in names if name in kept]
        for module in torch.nn.ModuleList(layers).modules():
            if all(p.ndim < 3 for p in module.parameters(recurse=False)):
                module.to_empty(device="cpu", recurse=False)
                for parameter in module.parameters(recurse=False):
                    torch.nn.init.normal_(parameter, std=0.02)
        setattr(network.get_submodule(parent), child, torch.nn.ModuleList(layers))
    return network


def configuration(model: Any) -> Any:
    """Return the configuration of a model as for `estimate_costs`. Raises `UserError` if it cannot be read."""
    if isinstance(model, PreTrainedConfig):
        return model
    if str(model).endswith("config.json"):
        if not Path(model).is_file():
            raise UserError(f"model {model}: no such file")
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    ref = model if isinstance(model, Model) else find(str(model))
    if ref.config is not None:
        facts = dict(ref.config)
        return AutoConfig.for_model(facts.pop("model_type"), **facts)
    try:
        return AutoConfig.from_pretrained(ref.source, revision=ref.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"model {ref.name}: its configuration cannot be read: {str(error).splitlines()[0]}") from error


def on_meta(
    config: PreTrainedConfig, method: Any, arguments: dict[str, Any], dtype: torch.dtype = torch.float32
) -> Adapted:
    """Return a method applied to a model on the meta device; `method` is as for `estimate_costs`."""
    with torch.device("meta"):
        return _put(_on_meta(config, dtype), method, arguments)


def _put(network: Any, method: Any, arguments: dict[str, Any]) -> Adapted:
    if isinstance(method, str):
        unit = METHODS[method]
        adapted: Adapted = unit.function(network, **unit.check(arguments))
        return adapted
    from peft import PeftConfig, get_peft_config

    if isinstance(method, dict):
        kind = str(method.get("peft_type", "")).upper()
        method = required_arguments(kind, method) | method if kind.lower() in types() else method
    asked = get_peft_config(dict(method)) if isinstance(method, dict) else copy.deepcopy(method)
    if not isinstance(asked, PeftConfig):
        raise UserError(f"method {method!r}: neither a name, a peft configuration nor its dictionary")
    return with_peft(network, asked)


def _on_meta(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> Any:
    # The implementation of experts is changed below; the caller's configuration must not change.
    config = copy.deepcopy(config)
    with torch.device("meta"):
        try:
            network = model_family(config).auto.from_config(config, dtype=dtype)
            network.config._experts_implementation = GROUPED
        except ValueError as error:
            raise UserError(
                f"a model of type {config.model_type} is no language model: {error}".split("\n")[0]
            ) from error
        if head_apart(config):
            head = network.get_output_embeddings()
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return network.requires_grad_(False).eval()


def forward_flops(adapted: Adapted) -> int:
    """Return the FLOPs of a forward pass on meta tensors or on a loaded model.

    Attention is computed by matrix products, since the counter does not know the fused CPU kernel.
    """
    adapted.model.eval()
    plain, trained = sdpa_kernel(SDPBackend.MATH), [p for p in adapted.model.parameters() if p.requires_grad]
    try:
        # The counter's hooks fail on trainable parameters that one module passes to another.
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.no_grad(), torch.random.fork_rng(), plain:
            return over(adapted.network, lambda: _flops(adapted))
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _flops(adapted: Adapted) -> int:
    with FlopCounterMode(display=False, custom_mapping=GROUPED_FORMULAS) as counter:
        model_family(adapted.network.config).pass_over(adapted, LENGTH)
    return int(counter.get_total_flops())


def untrained_costs(base: Base, adapted: Adapted, method: Choice) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Return the costs (names as in `Costs`) of a method that is not merged, before training, and notes.

    Quantised parameters count as the parameters that they represent. `adapter_bytes` is the size of the files of a
    saved adapter.
    """
    known = _known(base.config.to_json_string(use_diff=False), method.model_dump_json())
    parameters = list(adapted.model.parameters())
    found: dict[str, int | None] = {
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "total_parameters": sum(map(numbers, parameters)),
    }
    if method.place:
        found["adapter_bytes"] = weight_bytes(Path(method.place))
        if isinstance(known, CostEstimate) and known.trainable_parameters is not None:
            # The files may lack trained parameters, such as the encoder of a soft prompt.
            found |= {name: getattr(known, name) for name in ("trainable_parameters", "total_parameters")}
    flops = extra = None
    notes: tuple[str, ...] = ()
    try:
        flops, how = operations(adapted, base, known)
        extra = flops - base_flops(base.config)
        notes = (how,) if how else ()
    except Exception as problem:
        notes = (f"floating-point operations cannot be counted: {error_line(problem)}",)
    return found | {"forward_flops_512": flops, "extra_forward_flops_512": extra}, notes


def operations(adapted: Adapted, base: Base, known: "CostEstimate | str") -> tuple[int, str]:
    """Return the FLOPs of a forward pass, and the reason if they were counted on the loaded model, else "".

    `known`: the costs from meta tensors, or the reason why there are none. Raises `ValueError` if the FLOPs are not
    known and the base is quantised, since the counter does not know the kernels of such a base.
    """
    if isinstance(known, CostEstimate):
        if known.forward_flops_512 is not None:
            return known.forward_flops_512, ""
        known = "; ".join(known.notes)
    if base.quantise:
        raise ValueError(f"the weights of this base are quantised, and without weights: {known}")
    with low_precision(base):
        return forward_flops(adapted), f"floating-point operations were counted on the loaded model: {known}"


@lru_cache(maxsize=256)
def _known(config_json: str, method_json: str) -> CostEstimate | str:
    """Return the costs from meta tensors, or the error message if they cannot be computed."""
    method = Choice.model_validate_json(method_json)
    try:
        return estimate_costs(rebuilt(config_json), method.name, **given(method))
    except Exception as problem:
        return error_line(problem)


def base_flops(config: PreTrainedConfig) -> int:
    """Return the FLOPs of a forward pass of the model without a method."""
    return _base_flops(config.to_json_string(use_diff=False))


@lru_cache(maxsize=16)
def _base_flops(config_json: str) -> int:
    network = _on_meta(rebuilt(config_json))
    return forward_flops(Adapted(network, network))


def rebuilt(config_json: str) -> Any:
    """Return a configuration from the JSON text of its `to_json_string(use_diff=False)`."""

    def plain(value: dict[str, Any]) -> Any:
        return float(value["__float__"]) if set(value) == {"__float__"} else value

    facts = json.loads(config_json, object_hook=plain)
    return AutoConfig.for_model(facts.pop("model_type"), **facts)
