"""Share of programs that pass their tests, run in the sandbox."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from peftbench.core.machine_resources import usable_cpus
from peftbench.metrics import Answers, UnavailableError, metric
from peftbench.sandbox import NotContainedError, mode
from peftbench.sandbox.run_program_tests import ProgramVerdict, judge_program

WORKERS = 8
"""Maximum number of parallel programs. Their limit is CPU time, so parallel programs do not shorten it."""


def refusal() -> str | None:
    """Return why programs cannot run in a sandbox on this machine, or `None`."""
    try:
        mode()
    except NotContainedError as error:
        return str(error)
    return None


@metric(rowwise=True, needs=("tests",), refusal=refusal, light=False, version=3, paper="arXiv:2107.03374")
def pass_at_1(answers: Answers) -> list[float]:
    """100 if the answer passes all tests of the row (`details["tests"]`), else 0. A row without tests, or whose tests
    assert nothing, does not count. Raises `UnavailableError` if no row counts or there is no sandbox.
    """

    def row(pair: tuple[str, Mapping[str, Any]]) -> ProgramVerdict:
        program, details = pair
        return judge_program(program, details.get("tests") or ())

    try:
        mode()
        with ThreadPoolExecutor(min(WORKERS, usable_cpus())) as pool:
            details = answers.details or [{}] * len(answers.predictions)
            verdicts = list(pool.map(row, zip(answers.predictions, details, strict=True)))
    except NotContainedError as error:
        raise UnavailableError(str(error)) from error
    if all(verdict.passed is None for verdict in verdicts):
        raise UnavailableError(f"no row has tests that can decide; of the first, {verdicts[0].why}")
    return [math.nan if verdict.passed is None else 100.0 * verdict.passed for verdict in verdicts]
