from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peftbench.methods import Adapted, method
from peftbench.methods._svd import band, by_band, merged
from peftbench.models.target_modules import Layers, Modules, fitted

MODULES = ("k", "v", "down")


# Learning rate of the authors' script for banded coefficients on Gemma; zero initialisation as in the paper.
@method(learning_rate=5e-3, paper="arXiv:2405.19597", quantised="it needs the singular vectors of the weights")
def svft(model: Any, *, off_diagonal: int = 1, modules: Modules = MODULES, layers: Layers = "all") -> Adapted:
    """SVFT: a weight U S V' becomes U (S + M) V'. Trained is M, a band of `off_diagonal` diagonals on either side.

    M starts at zero. U and V' are stored next to the weight and cost memory and operations until they are merged.
    """
    targets, notes = fitted(model, modules, MODULES, layers)
    hosts, folded = [model.get_submodule(place) for place in targets], [False]

    def add(host: Any, inputs: Any, output: Any) -> Any:
        return output if folded[0] else output + by_band(host.svft, inputs[0])

    for host in hosts:
        host.add_module("svft", band(host, off_diagonal))
    hooks = [host.register_forward_hook(add) for host in hosts]

    @contextmanager
    def merge() -> Iterator[None]:
        with merged(hosts, "svft"):
            folded[0] = True
            try:
                yield
            finally:
                folded[0] = False

    def remove() -> None:
        for hook, host in zip(hooks, hosts, strict=True):
            hook.remove()
            del host.svft

    return Adapted(model, model, merge=merge, places=targets, remove=remove, notes=notes)
