"""What runs will cost, before any of them is done."""

from peftbench.core.machine_resources import memory_bytes
from peftbench.core.spec import RunSpec
from peftbench.models import find
from peftbench.models.saved_model_files import weight_bytes

SHARE = 0.02
"""The share of a machine's memory below which the weights of a model leave room enough not to ask."""


def is_large(spec: RunSpec) -> bool:
    """Whether a model may not fit for training: one of the Hub whose facts are known, or one with large files."""
    ref = find(spec.model.name)
    if ref.directory is None:
        return ref.config is not None
    return weight_bytes(ref.directory) > SHARE * memory_bytes()
