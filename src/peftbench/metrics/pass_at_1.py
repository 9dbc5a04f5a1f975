"""Share of programs that pass their tests, run in the sandbox."""

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from peftbench.metrics import Answers, UnavailableError, metric
from peftbench.sandbox import RefusedError, mode
from peftbench.sandbox.trial import passes

WORKERS = 8
"""At most so many programs at a time; what bounds a program is processor time, which the others do not take from it."""


@metric(rowwise=True, paper="arXiv:2107.03374")
def pass_at_1(answers: Answers) -> list[float]:
    """100 where the answer passes all of the row's tests (`details["tests"]`), else 0; a row without tests does not
    count. Raises `UnavailableError` where programs cannot be contained.
    """

    def row(pair: tuple[str, Mapping[str, Any]]) -> float:
        program, details = pair
        return 100.0 * passes(program, details["tests"]) if details.get("tests") else math.nan

    try:
        mode()
        with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
            details = answers.details or [{}] * len(answers.predictions)
            return list(pool.map(row, zip(answers.predictions, details, strict=True)))
    except RefusedError as error:
        raise UnavailableError(str(error)) from error
