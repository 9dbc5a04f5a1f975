"""Where in a network a method may be applied: the parts of a transformer layer by role, whatever a model calls them."""

from collections.abc import Sequence
from typing import Any

from peftbench.registry import UserError

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


def _linears(model: Any) -> list[str]:
    """Names of modules with a two-dimensional weight, but embeddings and the output head."""
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    return [
        name
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2 and all(module is not e for e in embeddings)
        if "Embedding" not in type(module).__name__
    ]


def places(model: Any, modules: Sequence[str]) -> list[str]:
    """Full names of the linear layers that play one of the roles, or that end in one of the names, in `modules`.

    Where query, key and value are one layer, that layer stands for each. Raises `UserError` listing what there is if
    one of them matches nothing.
    """
    linears = _linears(model)
    chosen: set[str] = set()
    for wanted in modules:
        found = _ending(linears, ROLES.get(wanted, (wanted,)))
        if not found and wanted in ("q", "k", "v"):
            found = _ending(linears, ROLES["qkv"])
        if wanted == "all-linear":
            found = linears
        if not found:
            present = sorted({name.rpartition(".")[2] for name in linears})
            roles = [role for role, names in ROLES.items() if _ending(linears, names)]
            raise UserError(f"no layer '{wanted}' in this model: choose from {', '.join([*roles, *present])}")
        chosen.update(found)
    return [name for name in linears if name in chosen]


def _ending(linears: list[str], names: Sequence[str]) -> list[str]:
    return [full for full in linears if any(full == name or full.endswith(f".{name}") for name in names)]


def norms(model: Any) -> list[str]:
    """Full names of the normalisation layers that have a weight."""
    return [
        name
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None
    ]
