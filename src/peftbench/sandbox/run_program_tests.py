"""Running programs against their tests.

The program has no access to its tests. Printed text and values of calls are compared in this process. Assertions, which
are code of a data set, run in a separate sandbox and call the program (`program_process.py`). The first failing test
determines the verdict.
"""

import json
import math
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from peftbench.sandbox import ResourceLimits, mode, patiently, run_program
from peftbench.sandbox.processes import attend, contained
from peftbench.sandbox.program_process import encode_value, same_value

Tests = Mapping[str, Any] | Sequence[str]
"""`inputs` and `outputs`, of a program or, with `fn_name`, of a function; or assertions on what a program defines.

A mapping may have `comparison`, one of `COMPARISONS`: the data set whose official program defines equality.
"""
COMPARISONS = ("exact", "apps")

# Solutions of programming contests expect these imports.
PRELUDE = """
import collections, copy, fractions, functools, heapq, itertools, math, random, re, string, sys, time
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from fractions import Fraction
from functools import lru_cache
from heapq import *
from itertools import accumulate, combinations, permutations, product
from math import ceil, cos, exp, fabs, floor, gcd, log, log2, sin, sqrt
from typing import *
"""


class ProgramVerdict(NamedTuple):
    """Whether a program passes its tests, and `why`; `passed` is `None` if the tests cannot decide.

    A program that fails because of a module that the sandbox lacks also has a reason.
    """

    passed: bool | None
    why: str = ""


def passes(program: str, tests: Tests, limits: ResourceLimits | None = None) -> bool | None:
    """Return True if a program passes all of its tests, `None` if they cannot decide.

    Raises `NotContainedError` if the program cannot be contained.
    """
    return judge_program(program, tests, limits).passed


def judge_program(program: str, tests: Tests, limits: ResourceLimits | None = None) -> ProgramVerdict:
    """As `passes`, with the reason (`Verdict`)."""
    limits = limits or ResourceLimits()
    if not isinstance(tests, Mapping):
        text = tests if isinstance(tests, str) else "\n".join(map(str, tests))
        return _holds(program, text, limits) if text.strip() else ProgramVerdict(None, "there are no tests")
    comparison = tests.get("comparison", "exact")
    if comparison not in COMPARISONS:
        return ProgramVerdict(None, f"the comparison '{comparison}' is not one of {', '.join(COMPARISONS)}")
    inputs, outputs, name = tests.get("inputs") or [], tests.get("outputs") or [], tests.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        return ProgramVerdict(None, "inputs and outputs must be lists")
    if name and not all(isinstance(given, list) for given in inputs):
        return ProgramVerdict(None, "each input must be a list of arguments")
    if len(inputs) != len(outputs):
        return ProgramVerdict(None, f"there are {len(inputs)} inputs and {len(outputs)} outputs")
    if not inputs:
        return ProgramVerdict(None, "there are no tests")
    apps = comparison == "apps"
    for given, wanted in zip(inputs, outputs, strict=True):
        if name:
            verdict = _returns(program, str(name), given, wanted, limits, apps=apps)
        else:
            verdict = _prints(program, given, wanted, apps, limits)
        if not verdict.passed:
            return verdict
    return ProgramVerdict(True)


LACKING = re.compile(r"^ModuleNotFoundError: No module named '(.+?)'", re.MULTILINE)


def _lacking(stderr: str) -> str:
    """Return a message if a program failed because of an import, by its error output; else an empty text."""
    names = LACKING.findall(stderr)
    return f"the program imports {names[-1]}, which the sandbox does not have" if names else ""


# ---- printed text ---------------------------------------------------------------------------------------------------


def _prints(program: str, given: object, wanted: object, apps: bool, limits: ResourceLimits) -> ProgramVerdict:
    outcome = run_program(program, _text(given), limits, prelude=PRELUDE, leave=apps)
    alike = alike_in_apps if apps else alike_exactly
    if outcome.status != "ok":
        return ProgramVerdict(False, _lacking(outcome.stderr))
    return ProgramVerdict(alike(outcome.stdout, _text(wanted)))


def _text(given: object) -> str:
    return "\n".join(map(str, given)) if isinstance(given, list) else str(given)


def alike_exactly(printed: str, wanted: str) -> bool:
    """Return True if the lines are equal, ignoring trailing white space and a final line feed."""
    return _ended(printed) == _ended(wanted)


def _ended(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def alike_in_apps(printed: str, wanted: str) -> bool:
    """Compare as the program of the authors of APPS does (arXiv:2105.09938).

    Empty lines and the width of white space are ignored; if all lines are numbers, they must be close.
    """
    left, right = nonempty_lines(printed), nonempty_lines(wanted)
    if left == right:
        return True
    try:
        pairs = [(float(one), float(other)) for one, other in zip(left, right, strict=True)]
    except ValueError:
        return False
    return all(math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-8) for one, other in pairs)


def nonempty_lines(text: str) -> list[str]:
    """Return the lines of a text that are not empty, with white space reduced to single blanks."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


# ---- values of calls ------------------------------------------------------------------------------------------------


def _returns(
    program: str, name: str, given: Sequence[object], wanted: object, limits: ResourceLimits, *, apps: bool
) -> ProgramVerdict:
    """Check whether a function, or a method of the class `Solution`, returns the expected value.

    Values are compared as JSON: a tuple equals a list, keys are text, and `true` is not a number. The program of the
    authors of APPS also converts keys of digits to numbers, and accepts the first of a list of expected values.
    """
    arguments = [_numbered(one) if apps else one for one in given]
    part = {"program": program, "prelude": PRELUDE, "leave": apps, "name": name}
    part["arguments"] = encode_value(arguments, lambda _: None)
    line, stderr = patiently(lambda: _called(part, limits))
    if not line:
        return ProgramVerdict(False, _lacking(stderr))
    try:
        value = _plain(json.loads(line))
        first = apps and isinstance(wanted, list) and wanted != [] and same_value(value, wanted[0])
        return ProgramVerdict(first or same_value(value, wanted))
    except (ValueError, RecursionError):
        return ProgramVerdict(False)


def _called(part: dict[str, Any], limits: ResourceLimits) -> tuple[tuple[bytes, str], bool]:
    """Return the report of the program's process, a line of JSON or empty, and its error output."""
    with contained(mode(), "call", part, limits) as process:
        status, spoilt = attend(process)
    process.check_started()
    line, end, _ = process.printed["report"][1:].partition(b"\n")
    return ((line if end and status is None else b""), process.text("err")), spoilt


def _plain(told: Any) -> Any:
    """Convert a value to JSON types. Raises `ValueError` if that is impossible."""
    if isinstance(told, list):
        return [_plain(one) for one in told]
    if not isinstance(told, dict):
        return told
    if "tuple" in told:
        return [_plain(one) for one in told["tuple"]]
    if "int" in told:
        return int(told["int"], 16)
    if "dict" in told:
        return {_key(key): _plain(one) for key, one in told["dict"]}
    raise ValueError("JSON has no such value")


def _key(told: Any) -> str:
    key = _plain(told)
    if isinstance(key, list | dict):
        raise ValueError("JSON has no such key")
    return key if isinstance(key, str) else json.dumps(key)


def _numbered(one: object) -> object:
    """Convert keys of digits to numbers, since JSON has turned them into text."""
    if isinstance(one, dict) and all(key.lstrip("-").isdecimal() for key in one):
        return {int(key): value for key, value in one.items()}
    return one


# ---- assertions -----------------------------------------------------------------------------------------------------


def _holds(program: str, assertions: str, limits: ResourceLimits) -> ProgramVerdict:
    found, why = patiently(lambda: _asserted(program, assertions, limits))
    return ProgramVerdict(found, why)


def _asserted(program: str, assertions: str, limits: ResourceLimits) -> tuple[tuple[bool | None, str], bool]:
    how = mode()
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        tester = contained(how, "test", {"tests": assertions}, limits, channel=ours.fileno())
        tried = contained(how, "serve", {"program": program}, limits, channel=theirs.fileno())
        with tester as tests, tried as subject:
            # Only the two processes keep an end, so that each notices when the other ends.
            ours.close()
            theirs.close()
            status, spoilt = attend(tests, subject)
    tests.check_started()
    match tests.report:
        case [None, str(why)] if status is None:
            return (None, why), False  # whatever the program is
        case [True] if status is None:
            return (True, ""), False
        case _:
            subject.check_started()
            return (False, _lacking(subject.text("err"))), spoilt
