"""Placement of a method on a model: the requested targets, the library's interpretation and what is trained."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError
from peftbench.methods import Adapted, Method
from peftbench.models.target_modules import Layers, Modules, fitted, within

ELSEWHERE = ("ADAPTION_PROMPT", "SHADOW", "TRAINABLE_TOKENS")
"""Types whose `target_modules` are not parts of a transformer layer; they are passed on unchanged."""
SHOWN = 4
"""Maximum number of names that an error shows."""
WRAPPED = ("use_dora", "lora_bias", "fan_in_fan_out", "velora_config", "kasa_config")
"""Settings of LoRA that the library supports for layers but not for single weights."""


def targeted(model: Any, config: Any) -> list[str] | None:
    """Return the full names of the modules and weights that a `peft` configuration targets; `None` if it names none.

    Names are matched by the library's rule, before it rewrites any.
    """
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers, check_target_module_exists

    modules, stacks = getattr(config, "target_modules", None), getattr(config, "target_parameters", None) or ()
    if config.peft_type in ELSEWHERE or (modules is None and not stacks) or getattr(config, "layer_replication", None):
        return None
    config = copy(config)
    if isinstance(modules, str):
        config = _maybe_include_all_linear_layers(config, model)
    ends = tuple(f".{each}" for each in stacks)
    found = [name for name, _ in model.named_modules() if name and modules and check_target_module_exists(config, name)]
    return found + [name for name, _ in model.named_parameters() if name in stacks or name.endswith(ends)]


@contextmanager
def names_kept(model: Any, config: Any) -> Iterator[None]:
    """Prevent the library from rewriting names of modules that exist in the model.

    For LoRA it treats every name ending in `down_proj` as the experts of older `transformers` versions, and trains the
    experts of all layers instead. That is correct only for older adapters, whose names the model does not have.
    """
    from peft.utils import transformers_weight_conversion as conversion

    named = {name for name, _ in model.named_modules()}
    modules = getattr(config, "target_modules", None)
    if modules is None or isinstance(modules, str) or not set(modules) <= named:
        yield
        return
    rewrite = conversion.convert_peft_config_for_transformers
    conversion.convert_peft_config_for_transformers = lambda *_, **__: None
    try:
        yield
    finally:
        conversion.convert_peft_config_for_transformers = rewrite


def readable(peft_model: Any, folder: Path) -> None:
    """Change a saved adapter so that the library alone loads it correctly: modules whose names it would rewrite are
    named as weights, which computes the same function. Adapters with settings in `WRAPPED` keep their modules.
    """
    config, network = peft_model.active_peft_config, peft_model.get_base_model()
    if getattr(network, "is_quantized", False):
        return
    path = folder / "adapter_config.json"
    names = sorted(getattr(peft_model.base_model, "targeted_module_names", ()))
    moved = [name for name in names if _rewritten(network, config, name)]
    if not moved:
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    content["target_modules"] = names
    if not any(content.get(setting) for setting in WRAPPED):
        content["target_modules"] = [name for name in names if name not in moved]
        stacks = content.get("target_parameters") or []
        # Dropout is used only in training.
        content |= {"target_parameters": [*stacks, *(f"{name}.weight" for name in moved)], "lora_dropout": 0.0}
    path.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def _rewritten(network: Any, config: Any, name: str) -> bool:
    """Return True if the library would rewrite the name of a module."""
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    tried = copy(config)
    tried.target_modules, tried.target_parameters = {name}, None
    tried.rank_pattern, tried.alpha_pattern = {}, {}
    try:
        convert_peft_config_for_transformers(tried, network, None)
    except ValueError:
        # The library rewrites this name only together with others.
        return True
    return name not in tried.target_modules


def names_of(model: Any) -> set[str]:
    """Return the full names of the modules and weights of a model."""
    return {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}


def meant_by(model: Any, method: Method, arguments: Mapping[str, Any]) -> list[str] | None:
    """Return the names that a method's `modules` and `layers` arguments select; `None` if they exclude nothing."""
    asked = {name: each.default for name, each in method.parameters.items()} | dict(arguments)
    choices = {name for name, each in method.parameters.items() if each.annotation in (Layers, Modules, Modules | None)}
    chosen = asked["layers"] if "layers" in choices else "all"
    if "modules" in choices and asked["modules"] is not None:
        return fitted(model, asked["modules"], method.parameters["modules"].default or (), chosen)[0]
    return None if chosen == "all" else within(model, sorted(names_of(model)), chosen)


def check_placed(adapted: Adapted, names: Collection[str], allowed: Sequence[str] | None) -> None:
    """Compare the trained modules with those requested by the method and by the arguments of the run.

    `names`: modules and weights of the base before the method is applied. `allowed`: those selected by the arguments
    `modules` and `layers`, if the method has them. Raises `UserError` with both lists if they differ.
    """
    if adapted.places is None and allowed is None:
        return
    found = set(hosts(adapted, names))
    asked = found if adapted.places is None else set(adapted.places)
    if found != asked:
        raise UserError(f"it would not stand where it was asked to: asked for {_list(asked)}; trained {_list(found)}")
    inside = tuple(f"{name}." for name in allowed or ())
    if beside := [name for name in found if allowed is not None and not f"{name}.".startswith(inside)]:
        raise UserError(
            f"it would not stand where it was asked to: asked for {_list(allowed or ())}; "
            f"beside them it trains {_list(beside)}"
        )


def hosts(adapted: Adapted, names: Collection[str]) -> list[str]:
    """Return the modules and weights of the base that are trained or have a trained part added.

    For the library's tuners, whole modules, tokens and biases that another argument makes trainable are not counted.
    """
    if hasattr(adapted.model, "get_base_model"):
        return [name for name in _tuned(adapted.model) if name in names]
    found = dict.fromkeys(_owner(name, names) for name, p in adapted.model.named_parameters() if p.requires_grad)
    return list(found)


def _owner(name: str, names: Collection[str]) -> str:
    """Return the innermost of `names` that contains a parameter: the parameter itself or a module around it."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def _tuned(peft_model: Any) -> Iterator[str]:
    """Return the base names of the modules and weights that a tuner trains."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    named: list[tuple[str, Any]] = list(peft_model.base_model.model.named_modules())
    apart = tuple(f"{name}." for name, module in named if isinstance(module, AuxiliaryTrainingWrapper))
    layers: list[tuple[str, Any]] = [
        (name, each) for name, each in named if isinstance(each, BaseTunerLayer) and not name.startswith(apart)
    ]
    within = tuple(f"{name}." for name, _ in layers)
    trained = [name for name, p in peft_model.base_model.named_parameters() if p.requires_grad]
    # Some types have one set of parameters for all layers and none in the layers.
    shared = any(not name.removeprefix("model.").startswith((*within, *apart)) for name in trained)
    for name, layer in layers:
        own = [p for key, p in layer.named_parameters() if not key.startswith("base_layer.") and p.requires_grad]
        if own or shared:
            weight = getattr(layer, "parameter_name", "")
            yield ".".join(filter(None, [*(part for part in name.split(".") if part != "base_layer"), weight]))


def _list(names: Collection[str]) -> str:
    shown = sorted(names)[:SHOWN]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} ({', '.join(shown)}{more})" if names else "nothing"
