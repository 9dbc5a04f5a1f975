"""Check that a method supports the base model and the training settings of a run."""

from typing import Any

from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.methods import METHODS, Method
from peftbench.methods._saved_files import made_by


def base_quantisation(spec: RunSpec) -> Any:
    """Return the quantisation of a run's base. Raises `UserError` if model and method require different ones."""
    name, asked = made_by(spec.method).name, spec.model.arguments.get("quantise")
    needed = METHODS[name].facts.quantise if name in METHODS else None
    if needed and asked not in (None, needed):
        raise UserError(f"{name} needs a base quantised to {needed}, not {asked}")
    return asked or needed


def check_possible(method: Method, spec: RunSpec, on_quantised: bool) -> None:
    """Raise `UserError` if the method does not support checkpointing or a quantised base and the run has it."""
    if spec.train.gradient_checkpointing and method.facts.gradient_checkpointing:
        raise UserError(f"{method.name} refuses gradient checkpointing: {method.facts.gradient_checkpointing}")
    if on_quantised and method.facts.quantised:
        raise UserError(f"{method.name} cannot be used on a quantised base: {method.facts.quantised}")
