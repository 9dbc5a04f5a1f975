"""Programs against their tests: each test is a run of its own, and the first that fails decides.

Right answers stay outside the sandbox where they can (printed text, values of calls). With assertions they cannot, and
what shows that all were reached is a word that no program knows beforehand: to end early is not to pass.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from peftbench.sandbox import Limits, Outcome, run

Tests = Mapping[str, Any] | Sequence[str]
"""`inputs` and `outputs`, of a program or, with `fn_name`, of a function; or assertions on what a program defines."""

# Programs of APPS are written to be run after such imports, which have numpy too, and as the body of a function, so
# that some leave by `return` (arXiv:2105.09938, `testing_util.py` of its authors).
PRELUDE = """
import collections, copy, fractions, functools, heapq, itertools, math, random, re, string, sys, time
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from fractions import Fraction
from functools import lru_cache
from heapq import *
from itertools import accumulate, combinations, permutations, product
from math import ceil, cos, exp, fabs, floor, gcd, log, log2, sin, sqrt
from typing import *
sys.set_int_max_str_digits(0)
"""
LEAVING = """
def _compiled(program):
    import ast
    class Leaving(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return node
        visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef
        def visit_Return(self, node):
            return ast.copy_location(ast.Raise(ast.Name("SystemExit", ast.Load())), node)
    try:
        return compile(program, "program.py", "exec")
    except SyntaxError:
        return compile(ast.fix_missing_locations(Leaving().visit(ast.parse(program))), "program.py", "exec")
"""


def passes(program: str, tests: Tests, limits: Limits | None = None) -> bool:
    """Whether a program passes all of its tests. Raises `RefusedError` if it cannot be contained."""
    if not isinstance(tests, Mapping):
        return _holds(program, tests, limits)
    test = _returns if tests.get("fn_name") else _prints
    cases = zip(tests["inputs"], tests["outputs"], strict=True)
    return all(test(program, given, wanted, str(tests.get("fn_name")), limits) for given, wanted in cases)


def _holds(program: str, assertions: Sequence[str], limits: Limits | None) -> bool:
    word = secrets.token_hex(16)
    outcome = run(f"{_embedded(program)}\n{_embedded(chr(10).join(assertions))}\nprint({word!r})", "", limits)
    return _last_line(outcome) == word


def _prints(program: str, given: object, wanted: object, _: str, limits: Limits | None) -> bool:
    start = f"exec(globals().pop('_compiled')({program!r}))"
    outcome = run(PRELUDE + LEAVING + start, _text(given), limits)
    return outcome.status == "ok" and lines(outcome.stdout) == lines(_text(wanted))


def _returns(program: str, given: Sequence[object], wanted: object, name: str, limits: Limits | None) -> bool:
    """Whether the function, or the method of the class `Solution`, returns what is wanted; some data sets put that in a
    list. Values are compared as JSON has them, in which the tests are written: a tuple equals a list.
    """
    word = secrets.token_hex(16)
    call = f"(Solution() if 'Solution' in globals() else sys.modules['__main__']).{name}(*{_arguments(given)!r})"
    outcome = run(
        f"{PRELUDE}{_embedded(program)}\nimport json, sys\nprint({word!r}, json.dumps({call}), sep='')", "", limits
    )
    last = _last_line(outcome)
    try:
        value = json.loads(last.removeprefix(word)) if last.startswith(word) else None
    except (ValueError, RecursionError):
        return False
    return last.startswith(word) and (value == wanted or (isinstance(wanted, list) and wanted[:1] == [value]))


def _embedded(program: str) -> str:
    """A statement that runs a program as it would run by itself, `from __future__` at its head included."""
    return f"exec(compile({program!r}, 'program.py', 'exec'), globals())"


def _arguments(given: Sequence[object]) -> list[object]:
    """The arguments of a call. JSON made text of the numbers that were keys."""
    return [
        {int(key): value for key, value in one.items()}
        if isinstance(one, dict) and all(key.lstrip("-").isdecimal() for key in one)
        else one
        for one in given
    ]


def _text(given: object) -> str:
    return "\n".join(map(str, given)) if isinstance(given, list) else str(given)


def lines(text: str) -> list[str]:
    """The lines of a text that are not empty, white space reduced to single blanks."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _last_line(outcome: Outcome) -> str:
    printed = outcome.stdout.splitlines() if outcome.status == "ok" else []
    return printed[-1] if printed else ""
