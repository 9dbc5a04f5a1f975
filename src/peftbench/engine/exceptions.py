"""How a training may end before its last step; `status` is what the run is then called.

Numbers that are not finite end a run wherever they come up: they would rank otherwise. Nothing here makes a GPU wait
more often than its caller does anyway.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from peftbench.core.spec import Status

if TYPE_CHECKING:
    from peftbench.engine.tokenization import Encoded


class DivergedError(Exception):
    """A loss, a weight or a logit is no longer a finite number."""

    status: ClassVar[Status] = "diverged"


class PrunedError(Exception):
    """Earlier trials of a search were better after as many steps."""

    status: ClassVar[Status] = "pruned"


def finite(number: float, what: str, step: int) -> float:
    """The number. Raises `DivergedError` if it is not finite."""
    if not math.isfinite(number):
        raise DivergedError(f"{what} became {number} at step {step}")
    return number


def check_weights(model: torch.nn.Module, when: str) -> None:
    """Raises `DivergedError`, with a name, if a trained weight is not finite; `when` says when that was looked at."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    # Of all at once, the greatest magnitude: one number to wait for.
    if named and not math.isfinite(torch.nn.utils.get_total_norm(named.values(), math.inf).item()):
        name = next(name for name, weight in named.items() if not weight.isfinite().all())
        raise DivergedError(f"{when}: the weight {name} is not finite")


def unusable(logits: Tensor) -> Tensor:
    """[batch], boolean: the rows of logits [batch, vocabulary] that have a NaN, plus infinity, or no finite number.

    Minus infinity alone is no fault: some models give it to tokens that may never come.
    """
    return ~logits.amax(-1).isfinite()


def check_answers(bad: Tensor, rows: "Sequence[Encoded]") -> None:
    """Raises `DivergedError` if a row has no answer; `bad` [batch], boolean: those whose logits are `unusable`."""
    if bad.any():
        first = rows[int(bad.nonzero()[0])]
        raise DivergedError(f"answering: the logits of row {first.number} are not finite (NaN, infinite or all masked)")
