"""How a training may end before its last step; `status` is what the run is then called."""

from typing import ClassVar

from peftbench.spec import Status


class DivergedError(Exception):
    """The loss is no longer a finite number."""

    status: ClassVar[Status] = "diverged"


class PrunedError(Exception):
    """Earlier trials of a search were better after as many steps."""

    status: ClassVar[Status] = "pruned"


class OutOfMemoryError(Exception):
    """One row at a time does not fit."""

    status: ClassVar[Status] = "out-of-memory"
