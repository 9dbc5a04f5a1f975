"""Tuners of the `peft` library as methods: arguments, target modules and special cases.

The list of types is read from the library at run time; only types that need special handling are named here.
"""

import dataclasses
import inspect
import re
import typing
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from math import gcd
from pathlib import Path
from typing import Any

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

from peftbench.core.registry import UserError, did_you_mean
from peftbench.methods import FOUR_BIT, Adapted, MethodFacts, TrainingContext, _peft_options, capabilities
from peftbench.methods._adapter_placement import ELSEWHERE
from peftbench.methods._low_rank import from_orthonormal
from peftbench.methods._peft_model import PREFIX_TYPES, of_decoder, save_peft_adapter, with_peft
from peftbench.models.target_modules import (
    GROUPS,
    ROLES,
    Layers,
    fitted,
    layers_text,
    norms,
    playing,
    target_module_names,
    weights,
    within,
)

MODULES = ("q", "v")
"""Default target roles of types without a more specific default."""
TOKENS = 20
TRAINED_TOKENS = 64
"""Default number of trained token ids, from 0: special and very frequent tokens in common tokenizers."""
REFUSED = {
    "CPT": "its loss is taken over the labels of in-context examples as well, in a pass of the library's own; here the "
    "loss is taken over answers alone",
    **_peft_options.ANSWERS,
}
RATES = {
    **dict.fromkeys(("LORA", "ADALORA"), 2e-4),
    **dict.fromkeys(("P_TUNING", "PREFIX_TUNING", "CARTRIDGE"), 3e-3),
    **dict.fromkeys(("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING"), 3e-2),
    "IA3": 5e-3,
}
"""Default learning rates of types that are bundled methods or similar to one."""
RATE = 1e-3


def types() -> list[str]:
    """Return the types of the installed library, in lower case."""
    return sorted(kind.value.lower() for kind in _mapping())


def _mapping() -> Mapping[Any, Any]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return typing.cast("Mapping[Any, Any]", PEFT_TYPE_TO_CONFIG_MAPPING)


def config_class(name: str) -> Any:
    """Return the library's configuration class of a type. Case is ignored. Raises `UnknownNameError`."""
    found = {kind.value: kind_class for kind, kind_class in _mapping().items()}
    if name.upper() not in found:
        raise did_you_mean("type of peft", name.lower(), types())
    return found[name.upper()]


def type_facts(kind: str) -> MethodFacts:
    """Return the facts of a type. Its version is that of the library, which sets its defaults and computation."""
    papers = set(re.findall(r"(?:papers|abs|pdf)/(\d{4}\.\d{4,5})", f"{config_class(kind).__doc__}{_tuner_doc(kind)}"))
    cached = "its prefix is a key-value cache, which checkpointing recomputes without"
    return MethodFacts(
        learning_rate=RATES.get(kind, RATE),
        # With several papers, the others describe variants of the type.
        paper=f"arXiv:{papers.pop()}" if len(papers) == 1 else "",
        version="peft " + ".".join(version("peft").split(".")[:2]),
        gradient_checkpointing=cached if kind in PREFIX_TYPES else "",
        quantised=_unlike_quantised(kind),
    )


def _unlike_quantised(kind: str) -> str:
    """Return why a type does not work on quantised weights, as measured on 4-bit weights; empty if it does."""
    why = capabilities().get(f"peft:{kind.lower()}", {}).get("why", ())
    return next((reason for reason in why if reason.startswith(FOUR_BIT)), "")


def type_summary(kind: str) -> str:
    """Return the library's description of a type, in one line."""
    # A dataclass without a docstring has its signature as docstring.
    docs = [doc for doc in (_tuner_doc(kind), config_class(kind).__doc__ or "") if not re.match(r"\w+Config\(", doc)]
    said = re.split(r"\n\s*\n|\.\s", inspect.cleandoc(next(filter(None, docs), kind)))[0]
    return re.sub(r"\[`?|`?\]", "", " ".join(said.split())).rstrip(".") + "."


def _tuner_doc(kind: str) -> str:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return next((tuner.__doc__ or "" for name, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if name.value == kind), "")


def signature(kind: str) -> inspect.Signature:
    """Return the fields of a type's configuration as keyword-only arguments, without those that the library sets, and
    with `layers` if the type targets parts of transformer layers.
    """
    from peft import PeftConfig

    own = {field.name for field in dataclasses.fields(PeftConfig)}
    hints = typing.get_type_hints(config_class(kind))
    found = {f.name: (_default(f), _known(hints[f.name])) for f in dataclasses.fields(config_class(kind)) if f.init}
    if "target_modules" in found and kind not in ELSEWHERE:
        found.setdefault("layers", ("all", Layers))
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(name, keyword, default=default, annotation=annotation)
            for name, (default, annotation) in found.items()
            if name not in own
        ]
    )


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _known(annotation: Any) -> Any:
    """Return an annotation, or `Any` if pydantic cannot validate it."""
    try:
        TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return Any
    return annotation


def check_arguments(kind: str, arguments: Mapping[str, Any]) -> None:
    """Raise `UserError` with the reason if the library rejects the arguments or they are not supported here."""
    _check_options(kind, arguments)
    configure(kind, {name: value for name, value in arguments.items() if name != "layers"})


def _check_options(kind: str, arguments: Mapping[str, Any]) -> None:
    _peft_options.check_options(kind, arguments, {name: p.default for name, p in signature(kind).parameters.items()})


def configure(kind: str, arguments: Mapping[str, Any]) -> Any:
    """Build the library's configuration of a type, with its required arguments. Raises `UserError`."""
    if kind in REFUSED:
        raise UserError(f"peft:{kind.lower()} cannot be run here: {REFUSED[kind]}")
    if kind == "SHADOW" and arguments.get("auxiliary_loss_weight"):
        raise UserError("peft:shadow: auxiliary_loss_weight must be 0: logits are computed for answers alone")
    given = required_arguments(kind, arguments) | dict(arguments)
    if kind == "ADALORA" and given.get("init_r", 12) <= given.get("target_r", 8):
        raise UserError("peft:adalora: init_r, the rank at the start, must be more than target_r, that of the end")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return config_class(kind)(**given)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"peft:{kind.lower()}: {_in_a_line(error)}") from error


def required_arguments(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for the required arguments of a type."""
    fields = {field.name for field in dataclasses.fields(config_class(kind))}
    own: dict[str, dict[str, Any]] = {
        # A placeholder: the number of steps is known when training starts.
        "ADALORA": {"total_step": given.get("tinit", 0) + given.get("tfinal", 0) + 1},
        "ADAPTION_PROMPT": {"adapter_len": 10},
        "FROD": {"progressbar": False},
        "SHADOW": {"auxiliary_loss_weight": 0.0},
        "TRAINABLE_TOKENS": {"token_indices": list(range(TRAINED_TOKENS))},
    }
    return ({"num_virtual_tokens": TOKENS} if "num_virtual_tokens" in fields else {}) | own.get(kind, {})


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def adapt_with_peft(model: Any, kind: str, arguments: Mapping[str, Any]) -> Adapted:
    """Apply a type to a model. Raises `UserError` with the reason if that is not possible."""
    _check_options(kind, arguments)
    given = {name: value for name, value in arguments.items() if name != "layers"}
    found, notes = _placed(model, kind, arguments)
    given |= found
    fitted = _fitted(model, kind, given)
    notes += [f"{name} = {value}: the library's default does not fit this model" for name, value in fitted.items()]
    given = _measures(model, kind) | given
    if kind == "SHADOW":
        notes.append("trained without its auxiliary loss")
    config = configure(kind, fitted | given)
    try:
        adapted = with_peft(model, config)
    except (UserError, TypeError, ImportError, AttributeError) as error:
        why = _in_a_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise UserError(f"peft:{kind.lower()} on this {model.config.model_type} model: {why}") from error
    if kind == "ADALORA":
        _schedule(adapted, config, "total_step" in given)
    adapted.notes = (*adapted.notes, *notes)
    return adapted


def _measures(model: Any, kind: str) -> dict[str, Any]:
    """Return the sizes that depend on the model and that the library does not infer correctly."""
    if kind == "ADAPTION_PROMPT":
        return {"adapter_layers": int(model.config.get_text_config().num_hidden_layers)}
    if kind in PREFIX_TYPES:
        return dict(of_decoder(model.config))
    # For an encoder–decoder the library would create two prompts and use only the encoder's.
    return {"num_transformer_submodules": 1} if "num_virtual_tokens" in signature(kind).parameters else {}


def _schedule(adapted: Adapted, config: Any, fixed: bool) -> None:
    """Set AdaLoRA's number of steps before training, and add its orthogonality term to the loss."""

    def prepare(ahead: TrainingContext) -> None:
        steps = config.total_step if fixed else ahead.steps
        if config.tinit >= steps - config.tfinal:
            raise UserError(f"peft:adalora: tinit and tfinal together must be less than the {steps} steps")
        config.total_step = steps

    def save(folder: Path) -> None:
        # Save all ranks, pruned ones as zeros: the best step may have pruned other ranks than the last.
        config.rank_pattern = None
        save_peft_adapter(adapted.model, folder)

    adapted.prepare, adapted.save = prepare, save
    adapted.penalty = lambda: config.orth_reg_weight * from_orthonormal(adapted.network)


def _placed(model: Any, kind: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the target arguments of a type with full module names, and notes on defaults that were chosen."""
    asked, known = given.get("target_modules"), signature(kind).parameters
    if "layers" not in known:
        return {}, []
    layers = _layers(given)
    if stacks := given.get("target_parameters"):
        # Weights without a linear layer, such as experts. An empty list disables the library's default target modules.
        found: dict[str, Any] = {"target_parameters": weights(model, stacks, layers), "target_modules": []}
        return found | ({"target_modules": _modules(model, asked, layers)} if asked else {}), []
    if asked is not None and not asked:
        raise UserError(f"peft:{kind.lower()}: target_modules is empty, and target_parameters names no weight")
    if kind == "LN_TUNING" and asked is None:
        return {"target_modules": norms(model, layers)}, []
    if kind == "LN_TUNING" or _is_pattern(asked):
        # For LoRA the library may rewrite a pattern as if it named modules of older models.
        named = layers != "all" or kind == "LORA"
        return ({"target_modules": _modules(model, asked, layers, kind)} if named else {}), []
    feeding = "feedforward_modules" in known
    default = ("k", "v", "down") if feeding else MODULES
    roles = asked or default
    targets, notes = fitted(model, roles, () if asked else default, layers)
    found = {"target_modules": targets}
    if feeding:
        inner = given.get("feedforward_modules")
        usual = playing(model, "down", layers) if "down" in roles else []
        found["feedforward_modules"] = (
            usual if inner is None else target_module_names(model, inner, layers) if inner else inner
        )
    if given.get("layers_to_transform") is not None:
        # The full names already contain the layers, and the library ignores this option with them.
        found["layers_to_transform"] = None
    return found, [] if asked else list(notes) or [f"put on {', '.join(roles)}"]


def _is_pattern(asked: Any) -> bool:
    """Return True if the modules are given as a regular expression, as in the library."""
    return isinstance(asked, str) and asked not in {*ROLES, *GROUPS}


def _modules(model: Any, asked: Any, layers: Layers, kind: str = "") -> Any:
    """Return full module names for a pattern, for name endings (norms), or for roles and groups."""
    if kind == "LN_TUNING" or _is_pattern(asked):
        found = within(model, [name for name, _ in model.named_modules() if name and _fits(name, asked)], layers)
        if not found:
            raise UserError(
                f"target_modules: '{asked}' fits no module of this model in the layers '{layers_text(layers)}'"
            )
        return found
    return target_module_names(model, asked, layers)


def _layers(given: Mapping[str, Any]) -> Any:
    """Return the choice of layers, from `layers` or `layers_to_transform`. Raises `UserError` if both are given."""
    numbers, layers = given.get("layers_to_transform"), given.get("layers", "all")
    if numbers is None:
        return layers
    if layers != "all":
        raise UserError("layers and layers_to_transform both choose layers: give one of them")
    return [numbers] if isinstance(numbers, int) else list(numbers)


def _fits(name: str, asked: Any) -> bool:
    if isinstance(asked, str):
        return re.fullmatch(asked, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in asked)


SHARE = {"C3A": "block_size", "VBLORA": "vector_length", "ROAD": "group_size"}
"""Arguments that must divide the widths of every target layer."""
MOST = {"SHIRA": "r", "FOURIERFT": "n_frequency", "WAVEFT": "n_frequency"}
"""Arguments whose maximum is set by the smallest target layer."""


def _fitted(model: Any, kind: str, given: Mapping[str, Any]) -> dict[str, int]:
    """Return reduced values of sizes that are not given and whose default does not fit the layers."""
    name, targets = SHARE.get(kind) or MOST.get(kind), given.get("target_modules")
    if name is None or name in given:
        return {}
    if isinstance(targets, str):
        named = model.named_modules()
        targets = [place for place, module in named if _fits(place, targets) and hasattr(module, "weight")]
    default = signature(kind).parameters[name].default
    weights = [model.get_submodule(target).weight for target in targets or ()]
    # 4-bit weights are stored flat.
    shapes = [tuple((getattr(weight, "quant_state", None) or weight).shape) for weight in weights]
    if not shapes:
        return {}
    if kind in SHARE:
        common = gcd(*(width for shape in shapes for width in shape))
        fits = max(size for size in range(1, min(default, common) + 1) if common % size == 0)
    else:
        fits = min(default, *(a * b // (a + b) if kind == "SHIRA" else a * b for a, b in shapes))
    return {name: fits} if fits != default else {}
