"""Forecasts and measurements of the costs of runs."""

from peftbench.core.machine_resources import memory_bytes
from peftbench.core.spec import RunSpec
from peftbench.models import find
from peftbench.models.saved_model_files import weight_bytes

SHARE = 0.02
"""Share of the memory up to which the weights of a model are assumed to leave enough room for training."""


def is_large(spec: RunSpec) -> bool:
    """Return True if training may not fit in memory: a known model of the Hub, or one with large weight files."""
    ref = find(spec.model.name)
    if ref.directory is None:
        return ref.config is not None
    return weight_bytes(ref.directory) > SHARE * memory_bytes()
