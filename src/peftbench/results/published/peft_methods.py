"""What a configuration of `peft` is called here, and a method of ours there."""

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
"""Types whose methods of ours are the same thing, with the names of their arguments: when nothing else is set."""
SWITCHES = {"use_dora": "dora", "use_rslora": "rslora"}
"""Arguments of LoRA that make it another method of ours."""
FILLED = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"),
}
"""What the library fills in itself."""
OWN = "peftbench"
"""Where a method of ours stands in a configuration of an exported run."""


def method_of(config: Mapping[str, Any] | None, training: Mapping[str, Any]) -> tuple[str, str]:
    """The name of a method and its arguments as text. No configuration is full fine-tuning.

    A name of ours is given only to the same thing: trained with another optimiser, or started in a way that the
    configuration does not tell, it keeps the library's name of its type.
    """
    if config is None:
        return "full", ""
    if OWN in config:
        return config[OWN]["name"], _text(config[OWN]["arguments"])
    kind = str(config["peft_type"])
    given = {name: _sorted(value) for name, value in config.items() if name not in FILLED and value is not None}
    try:
        told = METHODS[f"peft:{kind.lower()}"].check(given)
    except UserError:  # another version of the library had another type, or other arguments
        return kind, _text({name: value for name, value in given.items() if value not in ({}, [], "")})
    if training.get("optimizer_type", "AdamW") != "AdamW" or training.get("init_kv_cache_prefix") is not None:
        return kind, _text(told)
    return _ours(kind, given, told) or (f"peft:{kind.lower()}", _text(told))


def _ours(kind: str, given: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[str, str] | None:
    name, names = SAME.get(kind, ("", {}))
    switches = [switch for switch in SWITCHES if kind == "LORA" and told.get(switch) is True]
    others = set(told) - set(names) - set(switches)
    if not name or others or len(switches) > 1 or not set(names) <= set(given):
        return None
    unit = METHODS[SWITCHES[switches[0]] if switches else name]
    try:
        return unit.name, _text(unit.check({ours: given[theirs] for theirs, ours in names.items()}))
    except UserError:  # a value that the library takes and ours does not
        return None


def _sorted(value: Any) -> Any:
    """Sets of names are written as lists in no order."""
    return sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value


def _text(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(arguments.items()))


def config_of(method: Choice) -> dict[str, Any] | None:
    """A method of ours in place of a configuration: its type where the library has one, and what was asked of us."""
    if method.name == "full" and not method.arguments:
        return None
    family, _, member = method.name.partition(":")
    ours = {**{name: kind for kind, (name, _) in SAME.items()}, **dict.fromkeys(SWITCHES.values(), "LORA")}
    kind = member.upper() if family == "peft" and member else ours.get(method.name)
    return {"peft_type": kind, OWN: {"name": method.called or method.name, "arguments": dict(method.arguments)}}
