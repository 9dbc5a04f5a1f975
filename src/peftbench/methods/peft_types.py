"""What the tuners of the `peft` library are as methods: their arguments, where they go, and what each needs besides.

No type is named here but for a reason: the list of types is the library's own, read at run time.
"""

import dataclasses
import inspect
import re
import typing
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from math import gcd
from typing import Any

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

from peftbench.methods import Adapted, MethodFacts, capabilities
from peftbench.methods.peft_model import PREFIX_TYPES, with_peft
from peftbench.models.places import norms, places
from peftbench.registry import UserError, did_you_mean

MODULES = ("q", "v")
"""Roles of the layers that a type goes to unless it says, or the method needs, something else."""
TOKENS = 20
TRAINED_TOKENS = 64
"""The lowest ids: special tokens and the most elementary or most frequent pieces, in the usual tokenizers."""
ELSEWHERE = ("ADAPTION_PROMPT", "LN_TUNING", "SHADOW", "TRAINABLE_TOKENS")
"""Types whose `target_modules` are not linear layers; a list of names is taken as it is."""
REFUSED = {
    "CPT": "its loss is taken over the labels of in-context examples as well, in a pass of the library's own; this loop "
    "trains on answers alone",
    "XLORA": "it mixes trained LoRA adapters by a pass of its own before every call, without a key-value cache, which "
    "answering in batches needs",
}
RATES = {
    **dict.fromkeys(("LORA", "ADALORA"), 2e-4),
    **dict.fromkeys(("P_TUNING", "PREFIX_TUNING", "CARTRIDGE"), 3e-3),
    **dict.fromkeys(("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING"), 3e-2),
    "IA3": 5e-3,
}
"""Default learning rates of types that the core has, or that are like one of them."""
RATE = 1e-3


def types() -> list[str]:
    """The types of the installed library, in small letters."""
    return sorted(kind.value.lower() for kind in _mapping())


def _mapping() -> Mapping[Any, Any]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return typing.cast("Mapping[Any, Any]", PEFT_TYPE_TO_CONFIG_MAPPING)


def config_class(name: str) -> Any:
    """The library's configuration class of a type, in letters of either case. Raises `UnknownNameError`."""
    found = {kind.value: kind_class for kind, kind_class in _mapping().items()}
    if name.upper() not in found:
        raise did_you_mean("type of peft", name.lower(), types())
    return found[name.upper()]


def facts(kind: str) -> MethodFacts:
    """The light facts of a type. Its version is the library's, whose defaults and mathematics it has."""
    papers = set(re.findall(r"(?:papers|abs|pdf)/(\d{4}\.\d{4,5})", f"{config_class(kind).__doc__}{_tuner_doc(kind)}"))
    cached = "its prefix is a key-value cache, which checkpointing recomputes without"
    return MethodFacts(
        learning_rate=RATES.get(kind, RATE),
        # More than one are those of its variants.
        paper=f"arXiv:{papers.pop()}" if len(papers) == 1 else "",
        version="peft " + ".".join(version("peft").split(".")[:2]),
        gradient_checkpointing=cached if kind in PREFIX_TYPES else "",
    )


def about(kind: str) -> str:
    """What the library says of a type, in a line."""
    # A class without a text of its own has its signature for one.
    docs = [doc for doc in (_tuner_doc(kind), config_class(kind).__doc__ or "") if not re.match(r"\w+Config\(", doc)]
    said = re.split(r"\n\s*\n|\.\s", inspect.cleandoc(next(filter(None, docs), kind)))[0]
    return re.sub(r"\[`?|`?\]", "", " ".join(said.split())).rstrip(".") + "."


def _tuner_doc(kind: str) -> str:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return next((tuner.__doc__ or "" for name, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if name.value == kind), "")


def signature(kind: str) -> inspect.Signature:
    """The fields of a type's configuration as keyword-only arguments, without those the library fills in itself."""
    from peft import PeftConfig

    own = {field.name for field in dataclasses.fields(PeftConfig)}
    hints = typing.get_type_hints(config_class(kind))
    return inspect.Signature(
        [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=_known(hints[f.name]))
            for f in dataclasses.fields(config_class(kind))
            if f.init and f.name not in own
        ]
    )


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _known(annotation: Any) -> Any:
    """An annotation, or anything where it is one that cannot be checked."""
    try:
        TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return Any
    return annotation


def check(kind: str, arguments: Mapping[str, Any]) -> None:
    """Raises `UserError` with the library's reason for arguments that it does not take, or ours for a type."""
    configure(kind, arguments)


def configure(kind: str, arguments: Mapping[str, Any]) -> Any:
    """The library's configuration of a type, with what it leaves out and cannot do without."""
    if kind in REFUSED:
        raise UserError(f"peft:{kind.lower()} cannot be run here: {REFUSED[kind]}")
    given = _needed(kind) | dict(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return config_class(kind)(**given)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"peft:{kind.lower()}: {_in_a_line(error)}") from error


def _needed(kind: str) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(config_class(kind))}
    own = {"TRAINABLE_TOKENS": {"token_indices": list(range(TRAINED_TOKENS))}, "ADAPTION_PROMPT": {"adapter_len": 10}}
    own |= {"SHADOW": {"auxiliary_loss_weight": 0.0}, "FROD": {"progressbar": False}}
    return ({"num_virtual_tokens": TOKENS} if "num_virtual_tokens" in fields else {}) | own.get(kind, {})


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def adapt(model: Any, kind: str, arguments: Mapping[str, Any]) -> Adapted:
    """A model with a type on it. Raises `UserError` with the reason for one that cannot be."""
    given, notes = dict(arguments), []
    places_, said = _places(model, kind, given)
    given |= places_
    fitted = _fitted(model, kind, given)
    notes += [*said, *(f"{name} = {value}: the library's default does not fit this model" for name, value in fitted.items())]
    if kind == "ADAPTION_PROMPT":
        given = {"adapter_layers": int(model.config.num_hidden_layers)} | given
    if kind == "SHADOW":
        notes.append("trained without its auxiliary loss")
    config = configure(kind, fitted | given)
    try:
        adapted = with_peft(model, config, mergeable=_merges(model, kind, arguments))
    except (ValueError, TypeError, ImportError, AttributeError, NotImplementedError) as error:
        raise UserError(f"peft:{kind.lower()} on this {model.config.model_type} model: {_in_a_line(error)}") from error
    adapted.notes = (*adapted.notes, *notes)
    return adapted


def _places(model: Any, kind: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arguments that say where a type goes, as full names of modules, and what was chosen for the user."""
    asked = given.get("target_modules")
    if kind in ELSEWHERE or "target_modules" not in signature(kind).parameters:
        chosen = norms(model) if kind == "LN_TUNING" and asked is None else asked
        return ({"target_modules": chosen} if chosen else {}), []
    if isinstance(asked, str):
        return {}, []
    feeding = "feedforward_modules" in signature(kind).parameters
    roles = asked or (("k", "v", "down") if feeding else MODULES)
    found = {"target_modules": places(model, roles)}
    if feeding:
        inner = given.get("feedforward_modules", [role for role in roles if role == "down"])
        found["feedforward_modules"] = places(model, inner) if inner and not isinstance(inner, str) else inner
    return found, [] if asked else [f"put on {', '.join(roles)}"]


SHARE = {"C3A": "block_size", "VBLORA": "vector_length", "ROAD": "group_size"}
"""Sizes that must divide the widths of every layer."""
MOST = {"SHIRA": "r", "FOURIERFT": "n_frequency", "WAVEFT": "n_frequency"}
"""Sizes that the smallest layer bounds."""


def _fitted(model: Any, kind: str, given: Mapping[str, Any]) -> dict[str, int]:
    """Sizes that the user leaves open and whose default does not fit the layers, made smaller."""
    name, targets = SHARE.get(kind) or MOST.get(kind), given.get("target_modules")
    if name is None or name in given or not isinstance(targets, list):
        return {}
    default = signature(kind).parameters[name].default
    shapes = [tuple(model.get_submodule(target).weight.shape) for target in targets]
    if kind in SHARE:
        common = gcd(*(width for shape in shapes for width in shape))
        fits = max(size for size in range(1, min(default, common) + 1) if common % size == 0)
    else:
        fits = min(default, *(a * b // (a + b) if kind == "SHIRA" else a * b for a, b in shapes))
    return {name: fits} if fits != default else {}


def _merges(model: Any, kind: str, arguments: Mapping[str, Any]) -> bool:
    """Whether folding this type into the weights was measured to be exact: for linear layers, and for what the library
    does by default. Numbers are sizes; any other argument may make it another method.
    """
    variants = [
        name
        for name, value in arguments.items()
        if not isinstance(value, (int, float)) or isinstance(value, bool)
        if name not in ("target_modules", "feedforward_modules", "layers_to_transform", "layers_pattern", "token_indices")
    ]
    plain = not any(type(module).__name__ == "Conv1D" for module in model.modules())
    measured = capabilities().get(f"peft:{kind.lower()}", {})
    return plain and not variants and measured.get("merge") is True
