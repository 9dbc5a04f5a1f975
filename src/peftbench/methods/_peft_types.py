"""What the tuners of the `peft` library are as methods: their arguments, where they go, and what each needs besides.

No type is named here but for a reason: the list of types is the library's own, read at run time.
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
from peftbench.methods._low_rank import from_orthonormal
from peftbench.methods._peft_model import PREFIX_TYPES, of_decoder, save_peft_adapter, with_peft
from peftbench.methods._placement import ELSEWHERE
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
"""Roles of the layers that a type goes to unless it says, or the method needs, something else."""
TOKENS = 20
TRAINED_TOKENS = 64
"""The lowest ids: special tokens and the most elementary or most frequent pieces, in the usual tokenizers."""
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


def type_facts(kind: str) -> MethodFacts:
    """The light facts of a type. Its version is the library's, whose defaults and mathematics it has."""
    papers = set(re.findall(r"(?:papers|abs|pdf)/(\d{4}\.\d{4,5})", f"{config_class(kind).__doc__}{_tuner_doc(kind)}"))
    cached = "its prefix is a key-value cache, which checkpointing recomputes without"
    return MethodFacts(
        learning_rate=RATES.get(kind, RATE),
        # More than one are those of its variants.
        paper=f"arXiv:{papers.pop()}" if len(papers) == 1 else "",
        version="peft " + ".".join(version("peft").split(".")[:2]),
        gradient_checkpointing=cached if kind in PREFIX_TYPES else "",
        quantised=_unlike_quantised(kind),
    )


def _unlike_quantised(kind: str) -> str:
    """Why a type does not work on quantised weights, as it was measured on those of four bits; empty if it does."""
    why = capabilities().get(f"peft:{kind.lower()}", {}).get("why", ())
    return next((reason for reason in why if reason.startswith(FOUR_BIT)), "")


def type_summary(kind: str) -> str:
    """What the library says of a type, in a line."""
    # A class without a text of its own has its signature for one.
    docs = [doc for doc in (_tuner_doc(kind), config_class(kind).__doc__ or "") if not re.match(r"\w+Config\(", doc)]
    said = re.split(r"\n\s*\n|\.\s", inspect.cleandoc(next(filter(None, docs), kind)))[0]
    return re.sub(r"\[`?|`?\]", "", " ".join(said.split())).rstrip(".") + "."


def _tuner_doc(kind: str) -> str:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return next((tuner.__doc__ or "" for name, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if name.value == kind), "")


def signature(kind: str) -> inspect.Signature:
    """The fields of a type's configuration as keyword-only arguments, without those the library fills in itself, and
    with our choice of `layers` where it goes to parts of layers.
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
    """An annotation, or anything where it is one that cannot be checked."""
    try:
        TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return Any
    return annotation


def check_arguments(kind: str, arguments: Mapping[str, Any]) -> None:
    """Raises `UserError` with the library's reason for arguments that it does not take, or ours for a type."""
    _check_options(kind, arguments)
    configure(kind, {name: value for name, value in arguments.items() if name != "layers"})


def _check_options(kind: str, arguments: Mapping[str, Any]) -> None:
    _peft_options.check_options(kind, arguments, {name: p.default for name, p in signature(kind).parameters.items()})


def configure(kind: str, arguments: Mapping[str, Any]) -> Any:
    """The library's configuration of a type, with what it leaves out and cannot do without."""
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
    """Arguments that a type cannot do without, if they are not given."""
    fields = {field.name for field in dataclasses.fields(config_class(kind))}
    own: dict[str, dict[str, Any]] = {
        # The number of steps is known when the training begins.
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
    """A model with a type on it. Raises `UserError` with the reason for one that cannot be."""
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
    """Sizes that the model decides and the library would not find, or find wrong."""
    if kind == "ADAPTION_PROMPT":
        return {"adapter_layers": int(model.config.get_text_config().num_hidden_layers)}
    if kind in PREFIX_TYPES:
        return dict(of_decoder(model.config))
    # For an encoder–decoder the library would make two prompts, of which it uses the encoder's alone.
    return {"num_transformer_submodules": 1} if "num_virtual_tokens" in signature(kind).parameters else {}


def _schedule(adapted: Adapted, config: Any, fixed: bool) -> None:
    """AdaLoRA's budget follows the steps of the training, and its orthogonality term is added to the loss."""

    def prepare(ahead: TrainingContext) -> None:
        steps = config.total_step if fixed else ahead.steps
        if config.tinit >= steps - config.tfinal:
            raise UserError(f"peft:adalora: tinit and tfinal together must be less than the {steps} steps")
        config.total_step = steps

    def save(folder: Path) -> None:
        # All ranks, those left out as zeros: the best step may have had others than the last.
        config.rank_pattern = None
        save_peft_adapter(adapted.model, folder)

    adapted.prepare, adapted.save = prepare, save
    adapted.penalty = lambda: config.orth_reg_weight * from_orthonormal(adapted.network)


def _placed(model: Any, kind: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arguments that say where a type goes, as full names of modules, and what was chosen for the user."""
    asked, known = given.get("target_modules"), signature(kind).parameters
    if "layers" not in known:
        return {}, []
    layers = _layers(given)
    if stacks := given.get("target_parameters"):
        # Weights that no layer owns, as of experts. The library's own target is no module then.
        found: dict[str, Any] = {"target_parameters": weights(model, stacks, layers), "target_modules": []}
        return found | ({"target_modules": _modules(model, asked, layers)} if asked else {}), []
    if asked is not None and not asked:
        raise UserError(f"peft:{kind.lower()}: target_modules is empty, and target_parameters names no weight")
    if kind == "LN_TUNING" and asked is None:
        return {"target_modules": norms(model, layers)}, []
    if kind == "LN_TUNING" or _is_pattern(asked):
        # Of LoRA the library may take a pattern for one of names that older models had.
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
        # Full names say it, and with them the library would not look at the numbers.
        found["layers_to_transform"] = None
    return found, [] if asked else list(notes) or [f"put on {', '.join(roles)}"]


def _is_pattern(asked: Any) -> bool:
    """Whether modules are named in the library's own way: by a pattern of whole names."""
    return isinstance(asked, str) and asked not in {*ROLES, *GROUPS}


def _modules(model: Any, asked: Any, layers: Layers, kind: str = "") -> Any:
    """Full names of modules: those of a pattern or, of norms, of the ends of names; of roles and groups."""
    if kind == "LN_TUNING" or _is_pattern(asked):
        found = within(model, [name for name, _ in model.named_modules() if name and _fits(name, asked)], layers)
        if not found:
            raise UserError(
                f"target_modules: '{asked}' fits no module of this model in the layers '{layers_text(layers)}'"
            )
        return found
    return target_module_names(model, asked, layers)


def _layers(given: Mapping[str, Any]) -> Any:
    """The choice of layers, which the library's own argument for it makes too."""
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
"""Sizes that must divide the widths of every layer."""
MOST = {"SHIRA": "r", "FOURIERFT": "n_frequency", "WAVEFT": "n_frequency"}
"""Sizes that the smallest layer bounds."""


def _fitted(model: Any, kind: str, given: Mapping[str, Any]) -> dict[str, int]:
    """Sizes that the user leaves open and whose default does not fit the layers, made smaller."""
    name, targets = SHARE.get(kind) or MOST.get(kind), given.get("target_modules")
    if name is None or name in given:
        return {}
    if isinstance(targets, str):
        named = model.named_modules()
        targets = [place for place, module in named if _fits(place, targets) and hasattr(module, "weight")]
    default = signature(kind).parameters[name].default
    weights = [model.get_submodule(target).weight for target in targets or ()]
    # Four-bit weights lie in a row.
    shapes = [tuple((getattr(weight, "quant_state", None) or weight).shape) for weight in weights]
    if not shapes:
        return {}
    if kind in SHARE:
        common = gcd(*(width for shape in shapes for width in shape))
        fits = max(size for size in range(1, min(default, common) + 1) if common % size == 0)
    else:
        fits = min(default, *(a * b // (a + b) if kind == "SHIRA" else a * b for a, b in shapes))
    return {name: fits} if fits != default else {}
