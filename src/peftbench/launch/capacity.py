"""How many workers a machine suits."""

from collections.abc import Iterable
from pathlib import Path

from peftbench.core import device, machine_resources
from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.models import find
from peftbench.models.saved_model_files import weight_bytes

WORKER_BYTES = 1_500_000_000
"""Memory of a worker without its model: torch, transformers, rows, and what a small run needs."""
COPIES = 4
"""How often the bytes of a model's files are counted beside: weights, gradients, optimiser states, activations."""


def default_workers(specs: Iterable[RunSpec] = ()) -> int:
    """One a GPU; without one, one a core that this process may use, as far as memory for the runs' models goes."""
    if gpus := device.visible_gpus():
        return len(gpus)
    names = {spec.model.name for spec in specs}
    need = WORKER_BYTES + COPIES * max(map(_weights, names), default=0)
    return max(1, min(machine_resources.usable_cpus(), machine_resources.usable_memory() // need))


def _weights(name: str) -> int:
    """Bytes of a model's weight files; 0 where they are not here."""
    try:
        directory: Path | None = find(name).directory
        return weight_bytes(directory) if directory else 0
    except (OSError, UserError):
        return 0
