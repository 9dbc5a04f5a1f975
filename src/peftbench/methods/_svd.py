"""A trained band matrix between the singular vectors of a frozen weight."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peftbench.methods._weight_restore import put_back


def band(host: Any, reach: int) -> Any:
    """Return the diagonals of a band matrix M [k, k] as zero parameters, the lowest first, with the singular vectors
    U [out, k] and V [in, k] as buffers; k = min(in, out). `reach`: diagonals on each side of the main one.
    """
    import torch

    u, _, vt = torch.linalg.svd(_out_first(host, host.weight.detach()).float(), full_matrices=False)
    # The sign of singular vectors is arbitrary; fix it so that training does not depend on it.
    sign = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
    sizes = [len(vt) - abs(offset) for offset in range(-reach, reach + 1) if abs(offset) < len(vt)]
    diagonals = torch.nn.ParameterList(torch.zeros(size, device=u.device) for size in sizes)
    diagonals.register_buffer("u", (u * sign).to(host.weight.dtype), persistent=False)
    diagonals.register_buffer("v", (vt.T * sign).to(host.weight.dtype), persistent=False)
    return diagonals


def by_band(diagonals: Any, x: Any) -> Any:
    """Compute U M V' x: [..., in] to [..., out]."""
    return _spread(diagonals, x @ diagonals.v) @ diagonals.u.T


@contextmanager
def merged(hosts: Sequence[Any], name: str) -> Iterator[None]:
    """Add the band `name` to the weights of the layers; restore them on exit."""
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
    """Multiply coordinates [..., k] in the basis of singular vectors by M."""
    from torch.nn.functional import pad

    found, k, reach = z.new_zeros(()), z.shape[-1], len(diagonals) // 2
    for offset, diagonal in enumerate(diagonals, start=-reach):
        below, above = max(-offset, 0), max(offset, 0)
        found = found + pad(z[..., above : k - below] * diagonal, (below, above))
    return found


def _out_first(host: Any, matrix: Any) -> Any:
    """Convert between [out, in] and the layer's weight layout: a Conv1D (GPT-2) stores [in, out]."""
    return matrix.T if type(host).__name__ == "Conv1D" else matrix
