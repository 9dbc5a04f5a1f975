"""Mapping between configurations of `peft` and methods of peftbench."""

import json
from collections.abc import Mapping
from typing import Any

from peftbench.core.registry import UserError
from peftbench.core.spec import Choice
from peftbench.methods import METHODS

SAME: dict[str, tuple[str, dict[str, str]]] = {
    "LORA": (
        "lora",
        {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "modules"},
    ),
    "IA3": ("ia3", {"target_modules": "modules", "feedforward_modules": "feedforward"}),
    "PROMPT_TUNING": ("prompt-tuning", {"num_virtual_tokens": "tokens", "prompt_tuning_init": "init"}),
}
"""Types of `peft` with an equivalent method of peftbench, and the names of its arguments.

They are equivalent only if no other argument is set.
"""
SWITCHES = {"use_dora": "dora", "use_rslora": "rslora"}
"""Arguments of LoRA that select another method of peftbench."""
FILLED = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"),
}
"""Fields that the library fills in itself."""
OWN = "peftbench"
"""Key of the method of peftbench in the configuration of an exported run."""


def method_of(config: Mapping[str, Any] | None, training: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of a method and its arguments as text; without a configuration, full fine-tuning.

    The name of peftbench is used only for an equivalent method. With another optimiser, or an initialisation that is
    not in the configuration, the library's type is used.
    """
    if config is None:
        return "full", ""
    if OWN in config:
        return config[OWN]["name"], _text(config[OWN]["arguments"])
    kind = str(config["peft_type"])
    given = {name: _sorted(value) for name, value in config.items() if name not in FILLED and value is not None}
    try:
        changed = METHODS[f"peft:{kind.lower()}"].check(given)
    except UserError:  # a type or arguments of another version of the library
        return kind, _text({name: value for name, value in given.items() if value not in ({}, [], "")})
    if training.get("optimizer_type", "AdamW") != "AdamW" or training.get("init_kv_cache_prefix") is not None:
        return kind, _text(changed)
    return _ours(kind, given, changed) or (f"peft:{kind.lower()}", _text(changed))


def _ours(kind: str, given: Mapping[str, Any], changed: Mapping[str, Any]) -> tuple[str, str] | None:
    name, names = SAME.get(kind, ("", {}))
    switches = [switch for switch in SWITCHES if kind == "LORA" and changed.get(switch) is True]
    others = set(changed) - set(names) - set(switches)
    if not name or others or len(switches) > 1 or not set(names) <= set(given):
        return None
    unit = METHODS[SWITCHES[switches[0]] if switches else name]
    try:
        return unit.name, _text(unit.check({ours: given[theirs] for theirs, ours in names.items()}))
    except UserError:  # a value that the library accepts and peftbench does not
        return None


def _sorted(value: Any) -> Any:
    """Sort lists of names: the library writes sets as lists in arbitrary order."""
    return sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value


def _text(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(arguments.items()))


def config_of(method: Choice) -> dict[str, Any] | None:
    """Return a configuration for a method of peftbench: the library's type, if it has one, and name and arguments."""
    if method.name == "full" and not method.arguments:
        return None
    family, _, member = method.name.partition(":")
    ours = {**{name: kind for kind, (name, _) in SAME.items()}, **dict.fromkeys(SWITCHES.values(), "LORA")}
    kind = member.upper() if family == "peft" and member else ours.get(method.name)
    return {"peft_type": kind, OWN: {"name": method.called or method.name, "arguments": dict(method.arguments)}}
