"""Resolve the `modules` and `layers` arguments of methods to names of modules, for any architecture."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from peftbench.core.registry import UserError, did_you_mean

ROLES: dict[str, tuple[str, ...]] = {
    "q": ("q_proj", "q", "query", "q_lin", "q_b_proj", "query_proj", "Wq"),
    "k": ("k_proj", "k", "key", "k_lin", "key_proj", "Wk"),
    "v": ("v_proj", "v", "value", "v_lin", "value_proj", "Wv"),
    "qkv": ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "wqkv", "W_pack"),
    "kv": ("kv_b_proj", "kv_proj"),
    "o": ("o_proj", "out_proj", "c_proj", "dense", "o", "wo", "Wo", "out_lin", "attention.output.dense"),
    "gate": ("gate_proj", "wi_0", "w1"),
    "up": (
        *("up_proj", "fc1", "c_fc", "fc_in", "wi", "wi_1", "Wi", "w3", "lin1", "dense_h_to_4h"),
        *("gate_up_proj", "intermediate.dense", "input_linear"),
    ),
    "down": (
        "down_proj",
        "fc2",
        "c_proj",
        "fc_out",
        "wo",
        "Wo",
        "w2",
        "lin2",
        "dense_4h_to_h",
        "output.dense",
        "output_linear",
    ),
}
"""Names of linear layers by role: query, key, value, fused query-key-value, fused key-value, attention output and the
parts of the feed-forward network. Attention roles match only in modules with a query projection, feed-forward roles
only outside them: GPT-2 uses `c_proj` in both, and `out_proj` is in Mamba's recurrent layer.
"""
ATTENTION = ("q", "k", "v", "qkv", "kv", "o")
PACKED = {"q": ("qkv",), "k": ("qkv", "kv"), "v": ("qkv", "kv")}
"""Fused layers that a role falls back to if the model has no separate layer for it."""
GROUPS: dict[str, tuple[str, ...]] = {
    "attention": ATTENTION,
    "self-attention": ATTENTION,
    "cross-attention": ATTENTION,
    "mlp": ("gate", "up", "down"),
    "all-linear": (),
}
"""Groups of roles. `attention` covers all linear layers of a module with a query projection."""
EXPERTS = "experts"
"""Name that selects the stacked weights of all experts."""
CROSS = {"EncDecAttention", "encoder_attn", "crossattention", "cross_attn"}
"""Module names of cross-attention."""
SHARES = ("all", "first-half", "last-half", "random-half", "every-other")
STACKS = ("encoder", "decoder")


def checked(layers: str | Sequence[int]) -> str | Sequence[int]:
    """Return `layers` unchanged. Raises `UserError` if they are invalid for every model."""
    _parts(layers)
    return layers


Layers = Annotated[str | Sequence[int], AfterValidator(checked)]
"""Transformer layers: a share, or a list of indices (negative indices count from the end).

Shares: `all`, `first-half`, `last-half`, `random-half` (the same for all methods of a seed), `every-other`. Halves of
an odd number include the middle layer. In an encoder–decoder a choice applies to both stacks; `encoder` or `decoder`
selects one stack, `encoder:last-half` or `decoder:0,3` part of it. `+` joins several choices.
"""
Modules = str | Sequence[str]
"""Linear layers: a role, a group of roles, the end of a name, or a list of these."""


def target_module_names(model: Any, modules: Modules, layers: Layers = "all") -> list[str]:
    """Return the full names of the linear layers that `modules` selects in the transformer layers `layers`.

    In a multimodal model only the text part is searched, unless the end of a name matches nothing there. If query, key
    and value are fused, each of these roles selects the fused layer; the same holds for gate and up. Raises `UserError`
    listing the possible values if a name matches nothing or no name is given.
    """
    linears = within(model, _linears(model), layers)
    chosen: set[str] = set()
    for wanted in [modules] if isinstance(modules, str) else modules:
        found = _meant(linears, wanted)
        if not found and layers == "all" and wanted not in {*ROLES, *GROUPS}:
            linears, found = linears + (more := _ending(_linears(model, whole=True), [wanted])), more
        if not found:
            where = "this model" if layers == "all" else f"the layers '{layers_text(layers)}' of this model"
            raise UserError(
                f"no layer '{wanted}' in {where}, {_stacks_said(model)}: choose from {_choices(linears)}"
                f"{_experts_said(model)}"
            )
        chosen.update(found)
    if not chosen:
        raise UserError(f"modules: none are given: choose from {_choices(linears)}")
    return [name for name in linears if name in chosen]


def fitted(model: Any, modules: Modules, default: Modules, layers: Layers = "all") -> tuple[list[str], tuple[str, ...]]:
    """Return the full names of the layers that `modules` selects, and notes for the user.

    If `modules` is the method's `default`, roles without a matching layer are dropped as long as another role matches:
    stacked experts are not linear layers, and in hybrid models not every layer has attention.
    """
    notes = []
    if not isinstance(modules, str) and list(modules) == list(default):
        played = [role for role in modules if playing(model, role, layers)]
        if played and (absent := [role for role in modules if role not in played]):
            notes.append(f"no linear layer plays {', '.join(absent)} here: put on {', '.join(played)}")
            modules = played
    found = target_module_names(model, modules, layers)
    if EXPERTS not in str(found) and within(model, _stacked(model), layers):
        notes.append(f"not on the experts{_experts_said(model)}")
    return found, tuple(notes)


def playing(model: Any, roles: Modules, layers: Layers = "all") -> list[str]:
    """Return the full names of the linear layers of the given roles; may be empty."""
    linears = within(model, _linears(model), layers)
    chosen = {name for role in ([roles] if isinstance(roles, str) else roles) for name in _meant(linears, role)}
    return [name for name in linears if name in chosen]


def weights(model: Any, wanted: Sequence[str], layers: Layers = "all") -> list[str]:
    """Return the full names of the parameters selected by name endings, or by `experts` (all stacked expert weights).

    Raises `UserError` listing the stacked weights if a name matches nothing.
    """
    start = text_part(model)
    names = within(model, [name for name, _ in model.named_parameters() if name.startswith(start)], layers)
    stacked = within(model, _stacked(model), layers)
    chosen: set[str] = set()
    for each in wanted:
        found = stacked if each == EXPERTS else _ending(names, [each])
        if not found:
            raise UserError(
                f"no weight '{each}' in the layers '{layers_text(layers)}' of this model, {_stacks_said(model)}: "
                "choose from "
                + (f"{EXPERTS}, {', '.join(_ends(stacked))}" if stacked else "the names of its parameters")
            )
        chosen.update(found)
    return [name for name in names if name in chosen]


def text_part(model: Any) -> str:
    """Return the name prefix of the text part of the model; empty if that is the whole model."""
    config = model.config
    if config.is_encoder_decoder or config.get_text_config() is config:
        return ""
    decoder = model.get_decoder()
    return next((f"{name}." for name, module in model.named_modules() if name and module is decoder), "")


def within(model: Any, names: Iterable[str], layers: Layers) -> list[str]:
    """Return the names that are inside the transformer layers `layers`; `all` keeps every name.

    Raises `UserError` listing the stacks and their layers if the model does not have a chosen layer.
    """
    if layers == "all":
        return list(names)
    found = stacks(model)
    chosen: list[str] = []
    for stack, which in _parts(layers):
        if stack not in ("", *found):
            raise UserError(f"layers '{layers_text(layers)}': no {stack} in this model, {_stacks_said(model)}")
        for name, members in found.items():
            if stack in ("", name):
                chosen += [f"{members[number]}." for number in _numbers(model, which, name, members)]
    return [name for name in names if name.startswith(tuple(chosen))]


def stacks(model: Any) -> dict[str, list[str]]:
    """Return the full names of the transformer layers by stack (`encoder`, `decoder`)."""
    linears, found, sizes = _linears(model), dict[str, list[str]](), dict[str, int]()
    outer: list[str] = []
    for name, module in model.named_modules():
        if type(module).__name__ != "ModuleList" or name.startswith(tuple(outer)):
            continue
        inside = [linear for linear in linears if linear.startswith(f"{name}.")]
        if not inside:
            continue
        outer.append(f"{name}.")
        reads = model.config.is_encoder_decoder and "encoder" in name.split(".")
        stack = "encoder" if reads else "decoder"
        # A model may have other module lists, of single matrices.
        if len(inside) > sizes.get(stack, 0):
            sizes[stack] = len(inside)
            found[stack] = [f"{name}.{number}" for number in range(len(module))]
    return found


def norms(model: Any, layers: Layers = "all") -> list[str]:
    """Return the full names of the normalisation layers with a weight in the text part of the model.

    Raises `UserError` if there are none.
    """
    start = text_part(model)
    found = [
        name
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__ and module._parameters.get("weight") is not None and name.startswith(start)
    ]
    if not (chosen := within(model, found, layers)):
        where = "this model" if layers == "all" else f"the layers '{layers_text(layers)}' of this model"
        raise UserError(f"no normalisation layer in {where} has a weight: choose another method")
    return chosen


def layers_text(layers: str | Sequence[int]) -> str:
    """Format a choice of layers."""
    return layers if isinstance(layers, str) else ",".join(map(str, layers))


def _parts(layers: str | Sequence[int]) -> list[tuple[str, str | Sequence[int]]]:
    """Return the stack (empty: every stack) and the share or indices of each part of a choice."""
    if not isinstance(layers, str):
        if not layers:
            raise UserError("layers: an empty list leaves nothing to adapt")
        return [("", layers)]
    found: list[tuple[str, str | Sequence[int]]] = []
    for part in layers.split("+"):
        stack, colon, which = part.strip().rpartition(":")
        if not colon and which in STACKS:
            stack, which = which, "all"
        if colon and stack not in STACKS:
            raise did_you_mean("stack of layers", stack, list(STACKS))
        numbers = [number.strip() for number in which.split(",")]
        if all(re.fullmatch(r"-?\d+", number) for number in numbers):
            found.append((stack, [int(number) for number in numbers]))
        elif which in SHARES:
            found.append((stack, which))
        else:
            raise did_you_mean("choice of layers", which, [*SHARES, *STACKS])
    return found


def _numbers(model: Any, which: str | Sequence[int], stack: str, members: Sequence[str]) -> Sequence[int]:
    """Return the layer indices of a stack. Raises `UserError` for an index out of range."""
    count = len(members)
    half = (count + 1) // 2
    if not isinstance(which, str):
        if wrong := [number for number in which if not -count <= number < count]:
            raise UserError(f"layers: no {stack} layer {layers_text(wrong)} in this model, {_stacks_said(model)}")
        return which
    if which == "random-half":
        return random.Random(f"{_seed()} {stack}").sample(range(count), half)
    shares: Mapping[str, Sequence[int]] = {
        "all": range(count),
        "first-half": range(half),
        "last-half": range(count - half, count),
        "every-other": range(0, count, 2),
    }
    return shares[which]


def _seed() -> int:
    """Return the seed of the run, which is set before a method is applied and is the same for all methods."""
    import torch

    return torch.initial_seed()


def _linears(model: Any, whole: bool = False) -> list[str]:
    """Return the names of the linear layers, except the output head, of the text part or of the `whole` model."""
    from torch.nn import Linear

    head, start = model.get_output_embeddings(), "" if whole else text_part(model)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) or type(module).__name__ == "Conv1D"
        # torch's attention and Mamba's time step only read the weight, so an adapter on the module would not be called.
        if type(module).__name__ != "NonDynamicallyQuantizableLinear" and not name.endswith(".dt_proj")
        if module is not head and name.startswith(start)
    ]


def _stacked(model: Any) -> list[str]:
    """Return the names of the stacked expert weights."""
    start = text_part(model)
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and EXPERTS in name.split(".") and name.startswith(start)
    ]


def _meant(linears: Sequence[str], wanted: str) -> list[str]:
    """Return the linear layers that match a role, a group or the end of a name."""
    if wanted == "all-linear":
        return list(linears)
    if wanted == "mlp":
        parts = {name for role in GROUPS[wanted] for name in _meant(linears, role)}
        return [name for name in linears if name in parts]
    heads = {_parent(name) for name in _ending(linears, ROLES["q"] + ROLES["qkv"] + ("q_a_proj", "kv_proj"))}
    attention = {name for name in linears if _parent(name) in heads or name.endswith(".attention.output.dense")}
    if wanted in GROUPS:
        cross = {name for name in attention if CROSS & set(name.split("."))}
        left_out = {"self-attention": cross, "cross-attention": attention - cross}.get(wanted, set())
        return [name for name in linears if name in attention - left_out]
    if wanted not in ROLES:
        return _ending(linears, (wanted,))
    sought = [name for name in linears if (name in attention) == (wanted in ATTENTION)]
    found = _ending(sought, ROLES[wanted])
    for other in PACKED.get(wanted, ()):
        found = found or _ending(sought, ROLES[other])
    return found or (_ending(sought, ("gate_up_proj",)) if wanted == "gate" else [])


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _choices(linears: Sequence[str]) -> str:
    """List the possible values of `modules` for these linear layers."""
    groups = [name for name in (*GROUPS, *ROLES) if _meant(linears, name)]
    return ", ".join(dict.fromkeys([*groups, *_ends(linears)])) or "nothing: it has no linear layer"


def _ends(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})


def _stacks_said(model: Any) -> str:
    found = ", ".join(f"{name} 0 to {len(members) - 1}" for name, members in stacks(model).items())
    return f"which has the layers {found}" if found else "which has no stack of layers"


def _experts_said(model: Any) -> str:
    """Describe how to train expert weights that are not linear layers; empty without such weights."""
    # For `…experts.weight` the last part is not specific enough.
    parts = [name.split(".") for name in _stacked(model)]
    found = sorted({".".join(each[-2:]) if each[-1] == "weight" else each[-1] for each in parts})
    if not found:
        return ""
    entry = f'{{ use = "peft", type = "LORA", target_modules = [], target_parameters = ["{EXPERTS}"] }}'
    return f"; its experts are the weights {', '.join(found)}, trained by {entry}"


def _ending(linears: Iterable[str], names: Sequence[str]) -> list[str]:
    return [full for full in linears if any(full == name or full.endswith(f".{name}") for name in names)]
