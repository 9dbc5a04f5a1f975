"""A band of trained coefficients on the singular vectors of a layer's weight, which stays as it is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peftbench.methods._weight_restore import put_back


def band(host: Any, reach: int) -> Any:
    """The diagonals of a band matrix M, the lowest first, as parameters of zeros; U [out, k] and V [in, k] as buffers.

    `reach`: diagonals on either side of the main one. Of k = min(in, out) numbers the main one has k, the next k - 1.
    """
    import torch

    u, _, vt = torch.linalg.svd(_out_first(host, host.weight.detach()).float(), full_matrices=False)
    # Singular vectors may come with either sign, on which what is trained must not depend.
    sign = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
    sizes = [len(vt) - abs(offset) for offset in range(-reach, reach + 1) if abs(offset) < len(vt)]
    diagonals = torch.nn.ParameterList(torch.zeros(size, device=u.device) for size in sizes)
    diagonals.register_buffer("u", (u * sign).to(host.weight.dtype), persistent=False)
    diagonals.register_buffer("v", (vt.T * sign).to(host.weight.dtype), persistent=False)
    return diagonals


def by_band(diagonals: Any, x: Any) -> Any:
    """What U M V' makes [..., out] of an input [..., in]."""
    return _spread(diagonals, x @ diagonals.v) @ diagonals.u.T


@contextmanager
def merged(hosts: Sequence[Any], name: str) -> Iterator[None]:
    """The weights of layers with the band of that name added; put back when the context is left."""
    undo = put_back(host.weight for host in hosts)
    for host in hosts:
        diagonals = getattr(host, name)
        more = (_spread(diagonals, diagonals.v) @ diagonals.u.T).detach().T
        host.weight.data = host.weight.data + _out_first(host, more)
    try:
        yield
    finally:
        undo()


def _spread(diagonals: Any, z: Any) -> Any:
    """M times coordinates [..., k] among the singular vectors."""
    from torch.nn.functional import pad

    found, k, reach = z.new_zeros(()), z.shape[-1], len(diagonals) // 2
    for offset, diagonal in enumerate(diagonals, start=-reach):
        below, above = max(-offset, 0), max(offset, 0)
        found = found + pad(z[..., above : k - below] * diagonal, (below, above))
    return found


def _out_first(host: Any, matrix: Any) -> Any:
    """A weight as [out, in], or such a matrix as the layer keeps it: those of GPT-2 are turned."""
    return matrix.T if type(host).__name__ == "Conv1D" else matrix
