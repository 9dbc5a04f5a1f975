"""Where in a network a method may be applied: in which of its layers, in which of their parts, whatever their names."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from peftbench.registry import UserError, did_you_mean

ROLES: dict[str, tuple[str, ...]] = {
    "q": ("q_proj", "q", "query", "q_lin"),
    "k": ("k_proj", "k", "key", "k_lin"),
    "v": ("v_proj", "v", "value", "v_lin"),
    "qkv": ("c_attn", "query_key_value", "qkv_proj", "Wqkv"),
    "o": ("o_proj", "out_proj", "attn.c_proj", "attention.dense", "self_attention.dense", "self_attn.dense", "o"),
    "gate": ("gate_proj", "wi_0"),
    "up": ("up_proj", "fc1", "c_fc", "fc_in", "wi", "wi_1", "dense_h_to_4h", "gate_up_proj"),
    "down": ("down_proj", "fc2", "mlp.c_proj", "fc_out", "wo", "dense_4h_to_h"),
}
"""Names of linear layers by role: query, key, value, the three in one, attention output, the feed-forward's parts."""
GROUPS: dict[str, tuple[str, ...]] = {
    "attention": ("q", "k", "v", "qkv", "o"),
    "self-attention": ("q", "k", "v", "qkv", "o"),
    "cross-attention": ("q", "k", "v", "qkv", "o"),
    "mlp": ("gate", "up", "down"),
    "all-linear": (),
}
"""Roles that have a name together."""
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


def places(model: Any, modules: Modules, layers: Layers = "all") -> list[str]:
    """Full names of the linear layers meant by `modules`, in the transformer layers meant by `layers`.

    Where query, key and value are one layer, that layer stands for each. Raises `UserError` listing what there is if
    one of the names matches nothing, or none is given.
    """
    linears = within(model, _linears(model), layers)
    chosen: set[str] = set()
    for wanted in [modules] if isinstance(modules, str) else modules:
        found = _meant(linears, wanted)
        if not found:
            where = "this model" if layers == "all" else f"the layers '{said(layers)}' of this model"
            raise UserError(f"no layer '{wanted}' in {where}, {_stacks_said(model)}: choose from {_choices(linears)}")
        chosen.update(found)
    if not chosen:
        raise UserError(f"modules: none are given: choose from {_choices(linears)}")
    return [name for name in linears if name in chosen]


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
            raise UserError(f"layers '{said(layers)}': no {stack} in this model, {_stacks_said(model)}")
        for name, members in found.items():
            if stack in ("", name):
                chosen += [f"{members[number]}." for number in _numbers(model, which, name, members)]
    return [name for name in names if name.startswith(tuple(chosen))]


def stacks(model: Any) -> dict[str, list[str]]:
    """Full names of the transformer layers by stack: of a `decoder`, or of an `encoder` and a `decoder`."""
    linears, found = _linears(model), dict[str, list[str]]()
    outer: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(other) for other in outer)
        if type(module).__name__ == "ModuleList" and not inside and _starting(linears, f"{name}."):
            outer.append(f"{name}.")
            reads = model.config.is_encoder_decoder and "encoder" in name.split(".")
            found["encoder" if reads else "decoder"] = [f"{name}.{number}" for number in range(len(module))]
    return found


def norms(model: Any, layers: Layers = "all") -> list[str]:
    """Full names of the normalisation layers that have a weight."""
    found = [
        name
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None
    ]
    return within(model, found, layers)


def said(layers: str | Sequence[int]) -> str:
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
            raise UserError(f"layers: no {stack} layer {said(wrong)} in this model, {_stacks_said(model)}")
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


def _linears(model: Any) -> list[str]:
    """Names of modules with a two-dimensional weight, but embeddings and the output head."""
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    return [
        name
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2 and all(module is not e for e in embeddings)
        if "Embedding" not in type(module).__name__
    ]


def _meant(linears: Sequence[str], wanted: str) -> list[str]:
    """Those linear layers that a role, a group or the end of a name means."""
    if wanted == "all-linear":
        return list(linears)
    if wanted in GROUPS:
        found = _ending(linears, [name for role in GROUPS[wanted] for name in ROLES[role]])
        cross = {name for name in found if CROSS & set(name.split("."))}
        if wanted == "cross-attention":
            return [name for name in found if name in cross]
        return [name for name in found if wanted != "self-attention" or name not in cross]
    found = _ending(linears, ROLES.get(wanted, (wanted,)))
    return found or (_ending(linears, ROLES["qkv"]) if wanted in ("q", "k", "v") else [])


def _choices(linears: Sequence[str]) -> str:
    """What `modules` may be, of these linear layers."""
    present = sorted({name.rpartition(".")[2] for name in linears})
    return ", ".join(dict.fromkeys([*(name for name in (*GROUPS, *ROLES) if _meant(linears, name)), *present]))


def _stacks_said(model: Any) -> str:
    found = ", ".join(f"{name} 0 to {len(members) - 1}" for name, members in stacks(model).items())
    return f"which has the layers {found}" if found else "which has no stack of layers"


def _ending(linears: Iterable[str], names: Sequence[str]) -> list[str]:
    return [full for full in linears if any(full == name or full.endswith(f".{name}") for name in names)]


def _starting(linears: Iterable[str], start: str) -> bool:
    return any(full.startswith(start) for full in linears)
