"""Where in a network a method may be applied: in which of its layers, in which of their parts, whatever their names."""

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
"""Names of linear layers by role: query, key, value, the three in one, the last two in one, attention output, the
feed-forward's parts. The roles of attention are played only in a module that has queries, those of the feed-forward
only outside of one: `c_proj` is the output of either in GPT-2, and `out_proj` that of a recurrent layer in Mamba.
"""
ATTENTION = ("q", "k", "v", "qkv", "kv", "o")
PACKED = {"q": ("qkv",), "k": ("qkv", "kv"), "v": ("qkv", "kv")}
"""Roles whose layer stands for another one, where that has no layer of its own."""
GROUPS: dict[str, tuple[str, ...]] = {
    "attention": ATTENTION,
    "self-attention": ATTENTION,
    "cross-attention": ATTENTION,
    "mlp": ("gate", "up", "down"),
    "all-linear": (),
}
"""Roles that have a name together. `attention` is all linear layers of a module that has queries."""
EXPERTS = "experts"
"""What stands for all stacked weights of experts, where weights of a model are meant."""
CROSS = {"EncDecAttention", "encoder_attn", "crossattention", "cross_attn"}
"""What models call the attention of a decoder to its encoder."""
SHARES = ("all", "first-half", "last-half", "random-half", "every-other")
STACKS = ("encoder", "decoder")


def checked(layers: str | Sequence[int]) -> str | Sequence[int]:
    """`layers` as they are. Raises `UserError` for what is no choice of layers in any model."""
    _parts(layers)
    return layers


Layers = Annotated[str | Sequence[int], AfterValidator(checked)]
"""Which layers: a share of them, or their numbers from 0, or from -1 at the end.

`all`, `first-half`, `last-half`, `random-half` (the same for all methods of a seed), `every-other`, or `[0, 3]`. Halves
of an odd number have the middle layer. In an encoder–decoder each of these is meant of both stacks; one stack is
`encoder` or `decoder`, or with a share or numbers `encoder:last-half`, `decoder:0,3`; several are joined by `+`.
"""
Modules = str | Sequence[str]
"""Which linear layers: a role, a group of roles, the end of a name, or a list of such for all of them together."""


def target_module_names(model: Any, modules: Modules, layers: Layers = "all") -> list[str]:
    """Full names of the linear layers meant by `modules`, in the transformer layers meant by `layers`.

    Of a model that reads images or sound too, those of the part that reads text; a layer of another part is meant by
    the end of a name that the text part does not have. Where query, key and value are one layer, that layer stands for
    each; so do gate and up. Raises `UserError` listing what there is if one of the names matches nothing, or none is
    given.
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
    """The places of `modules`, and what the user should know of them.

    Of a method's `default`, roles that no layer plays are left out, as long as others are played: the feed-forward of a
    mixture of experts is no linear layer, and not every layer of a hybrid has attention.
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
    """Full names of the linear layers that play one of some roles; none if there are none."""
    linears = within(model, _linears(model), layers)
    chosen = {name for role in ([roles] if isinstance(roles, str) else roles) for name in _meant(linears, role)}
    return [name for name in linears if name in chosen]


def weights(model: Any, wanted: Sequence[str], layers: Layers = "all") -> list[str]:
    """Full names of the parameters meant by ends of their names, or by `experts`: those stacked for all experts.

    Raises `UserError` listing the stacked ones for a name that matches nothing.
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
    """How the names of the part begin that reads and writes text; empty where that is the whole model."""
    config = model.config
    if config.is_encoder_decoder or config.get_text_config() is config:
        return ""
    decoder = model.get_decoder()
    return next((f"{name}." for name, module in model.named_modules() if name and module is decoder), "")


def within(model: Any, names: Iterable[str], layers: Layers) -> list[str]:
    """Those of some full names that stand in the transformer layers meant by `layers`; `all` leaves out none.

    Raises `UserError` listing the stacks and their numbers of layers for a choice this model does not have.
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
    """Full names of the transformer layers by stack: of a `decoder`, or of an `encoder` and a `decoder`."""
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
        # Beside the layers there may be lists of single matrices.
        if len(inside) > sizes.get(stack, 0):
            sizes[stack] = len(inside)
            found[stack] = [f"{name}.{number}" for number in range(len(module))]
    return found


def norms(model: Any, layers: Layers = "all") -> list[str]:
    """Full names of the normalisation layers that have a weight, of the part of the model that reads text.

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
    """A choice of layers in words."""
    return layers if isinstance(layers, str) else ",".join(map(str, layers))


def _parts(layers: str | Sequence[int]) -> list[tuple[str, str | Sequence[int]]]:
    """The stack, or no text for every stack, and the share or numbers of each part of a choice."""
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
    """Numbers of the layers of a stack. Raises `UserError` for one that it does not have."""
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
    """The seed that was set before the method is applied: that of the run, the same for all its methods."""
    import torch

    return torch.initial_seed()


def _linears(model: Any, whole: bool = False) -> list[str]:
    """Names of the linear layers but the output head, of the part that reads text or of the `whole` model."""
    from torch.nn import Linear

    head, start = model.get_output_embeddings(), "" if whole else text_part(model)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) or type(module).__name__ == "Conv1D"
        # What is never called cannot be adapted: torch's own attention and Mamba's time step read the weight alone.
        if type(module).__name__ != "NonDynamicallyQuantizableLinear" and not name.endswith(".dt_proj")
        if module is not head and name.startswith(start)
    ]


def _stacked(model: Any) -> list[str]:
    """Names of the weights that are stacked for all experts of a layer."""
    start = text_part(model)
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and EXPERTS in name.split(".") and name.startswith(start)
    ]


def _meant(linears: Sequence[str], wanted: str) -> list[str]:
    """Those linear layers that a role, a group or the end of a name means."""
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
    """What `modules` may be, of these linear layers."""
    groups = [name for name in (*GROUPS, *ROLES) if _meant(linears, name)]
    return ", ".join(dict.fromkeys([*groups, *_ends(linears)])) or "nothing: it has no linear layer"


def _ends(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})


def _stacks_said(model: Any) -> str:
    found = ", ".join(f"{name} 0 to {len(members) - 1}" for name, members in stacks(model).items())
    return f"which has the layers {found}" if found else "which has no stack of layers"


def _experts_said(model: Any) -> str:
    """How the weights of experts are trained, where they are not linear layers."""
    # Of `…experts.weight` the last part alone would say nothing.
    parts = [name.split(".") for name in _stacked(model)]
    found = sorted({".".join(each[-2:]) if each[-1] == "weight" else each[-1] for each in parts})
    if not found:
        return ""
    entry = f'{{ use = "peft", type = "LORA", target_modules = [], target_parameters = ["{EXPERTS}"] }}'
    return f"; its experts are the weights {', '.join(found)}, trained by {entry}"


def _ending(linears: Iterable[str], names: Sequence[str]) -> list[str]:
    return [full for full in linears if any(full == name or full.endswith(f".{name}") for name in names)]
