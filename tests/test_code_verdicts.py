"""Programs against tests: every wrong one fails, every right one passes, and tests that cannot tell are missing."""

# ruff: noqa: E501 (a program in a table of programs is a line)

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from peftbench import sandbox
from peftbench.metrics import METRICS, Answers, UnavailableError, score_metric
from peftbench.sandbox import NotContainedError, ResourceLimits
from peftbench.sandbox.run_program_tests import judge_program, nonempty_lines, passes
from peftbench.tasks import TASKS
from peftbench.tasks._loading import example_of
from peftbench.tasks.pocket import code

QUICK = ResourceLimits(
    seconds=8, cpu_seconds=1, memory_bytes=256 << 20, processes=8, file_bytes=1 << 20, output_bytes=100_000
)


def refusal() -> str:
    try:
        sandbox.mode()
    except NotContainedError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(refusal()), reason=f"needs a bubblewrap that works: {refusal()}")


@pytest.fixture
def weaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sandbox.SWITCH, "rlimit")


def together(cases: list[tuple[str, Any]]) -> list[bool | None]:
    """The verdicts on programs, several at a time, since each waits for others."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda case: passes(case[0], case[1], QUICK), cases))


# ---- assertions -----------------------------------------------------------------------------------------------------

TEN = ["assert answer(3) == 13", "assert answer(0) == 10"]
ALL_EQUAL = "class T:\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = None\n"
WRONG = {
    "another value": "def answer(x): return x",
    "nothing": "",
    "no name": "def other(x): return x + 10",
    "no Python": "def answer(x: return x + 10",
    "ends": "import sys\nsys.exit(0)",
    "ends at once": "import os\nos._exit(0)",
    "ends when called": "def answer(x): raise SystemExit(0)",
    "ends at once when called": "import os\ndef answer(x): os._exit(0)",
    "is interrupted": "def answer(x): raise KeyboardInterrupt",
    "equals all": ALL_EQUAL + "def answer(x): return T()",
    "is less and more than all": ALL_EQUAL + "T.__sub__ = lambda s, o: 0\nT.__abs__ = lambda s: 0\ndef answer(x): return T()",
    "a number that equals all": "class I(int):\n  __eq__ = lambda s, o: True\n  __hash__ = int.__hash__\n"
    "def answer(x): return I(0)",
    "a text that equals all": "class S(str):\n  __eq__ = lambda s, o: True\n  __hash__ = str.__hash__\n"
    "def answer(x): return S()",
    "a list that equals all": "class L(list):\n  __eq__ = lambda s, o: True\ndef answer(x): return L()",
    "imports what is not there": "import numpy\ndef answer(x): return x + 10",
    "imports what is not there when called": "def answer(x): import numpy; return x + 10",
    "says that tests cannot tell": "def answer(x): raise ImportError('numpy')",
    "a float that is nothing": "def answer(x): return float('nan')",
    "a name for all": "class answer:\n  def __new__(c, x): return object.__new__(c)\n  __eq__ = lambda s, o: True",
    "no assertions": "import builtins as b\nc = b.compile\nb.compile = lambda s, f, m, *a, **k: c(s, f, m, optimize=2)\n"
    "def answer(x): return 0",
    "no assertion errors": "import builtins\nbuiltins.AssertionError = Warning\nAssertionError = None\n"
    "def answer(x): return 0",
    "no execution": "import builtins\nbuiltins.exec = lambda *a: None\ndef answer(x): return 0",
    "an exception hook": "import sys\nsys.excepthook = lambda *a: print('x')\ndef answer(x): return 0",
    "prints a verdict": "print('[true]', flush=True)\nimport sys; sys.stderr.write('[true]\\n')\ndef answer(x): return 0",
    "writes to all that is open": "import os\nfor n in range(64):\n  for t in (b'[true]\\n', b'.[true]\\n'):\n"
    "    try: os.write(n, t)\n    except OSError: pass\ndef answer(x): return 0",
    "answers before it is asked": "import os\nfor n in range(3, 64):\n  try: os.write(n, b'{\"value\": 13}\\n' * 9)\n"
    "  except OSError: pass\nimport time; time.sleep(.5)",
    "calls what runs in the tests' box": r"""
import json, os
code = "import os\nfor n in range(64):\n  try: os.write(n, b'[true]\\n')\n  except OSError: pass"
line = json.dumps({"ask": "call", "with": [{"builtin": "exec"}, code], "named": {}}).encode() + b"\n"
for n in range(3, 64):
    try: os.write(n, line)
    except OSError: pass
def answer(x): return 0
""",
    "reads all that is open": """
import os, re
found = ''
for n in range(64):
    try:
        os.lseek(n, 0, 0); found += os.read(n, 1 << 20).decode('utf8', 'replace')
    except OSError: pass
for p in ('/proc/self/cmdline', '/proc/self/environ', '/proc/1/cmdline', '/proc/1/environ'):
    try: found += open(p, errors='replace').read()
    except OSError: pass
pairs = dict(re.findall(r'answer\\((\\d+)\\) == (\\d+)', found))
def answer(x): return int(pairs.get(str(x), -1))
""",
    "looks into frames": """
import gc, re, sys
def answer(x):
    found, frame = [], sys._getframe()
    while frame:
        found += [repr(frame.f_locals), repr(frame.f_globals), repr(frame.f_code.co_consts)]; frame = frame.f_back
    found += [o for o in gc.get_objects() if isinstance(o, str)]
    pairs = dict(re.findall(r'answer\\((\\d+)\\) == (\\d+)', ' '.join(found)))
    return int(pairs.get(str(x), -1))
""",
    "looks into memory": """
import re
def answer(x):
    for line in open('/proc/self/maps'):
        try:
            start, end = (int(n, 16) for n in line.split()[0].split('-'))
            with open('/proc/self/mem', 'rb') as memory:
                memory.seek(start)
                pairs = dict(re.findall(rb'answer\\((\\d+)\\) == (\\d+)', memory.read(min(end - start, 1 << 24))))
            if str(x).encode() in pairs: return int(pairs[str(x).encode()])
        except (OSError, ValueError, OverflowError): pass
    return -1
""",
    "a thread that overwrites": "import threading, sys\ndef answer(x): return 0\n"
    "threading.Thread(target=lambda: setattr(sys.modules['program'], 'answer', 0), daemon=True).start()",
    "passes at its exit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef answer(x): return 0",
    "endless": "def answer(x):\n  while True: pass",
    "a deep answer": "def answer(x):\n  a = []\n  for _ in range(100000): a = [a]\n  return a",
    "a cyclic answer": "def answer(x):\n  a = []\n  a.append(a)\n  return a",
    "a long answer": "def answer(x): return 'x' * 10_000_000",
}  # fmt: skip
RIGHT = {
    "plain": "def answer(x): return x + 10",
    "another name for it": "answer = lambda value: value + 10",
    "a float": "def answer(x): return float(x + 10)",
    "a fraction": "from fractions import Fraction\ndef answer(x): return Fraction(x + 10)",
    "a class that is called": "class answer:\n  def __new__(cls, x): return x + 10",
    "prints": "def answer(x):\n  print('debug', end='')\n  return x + 10",
    "prints at exit": "import atexit\natexit.register(print, 'bye')\ndef answer(x): return x + 10",
    "defines print": "def print(*a): pass\ndef answer(x): return x + 10",
    "defines compile and exec": "def compile(s, *a): return s\ndef exec(*a): raise ValueError\ndef answer(x): return x + 10",
    "names variables json, os, sys": "json = os = sys = 1\ndef answer(x): return x + 10",
    "defines what the tests do not use": "def same(a, b): return False\ndef len(x): return 3\ndef answer(x): return x + 10",
    "late threads": "import threading, time\ndef late():\n  time.sleep(.3); print('late')\n"
    "threading.Thread(target=late).start()\ndef answer(x): return x + 10",
    "a main part": "def answer(x): return x + 10\nif __name__ == '__main__':\n  print(answer(int(input())))",
    "closes its output": "import sys\nsys.stdout.close()\ndef answer(x): return x + 10",
    "a deep recursion": "import sys\nsys.setrecursionlimit(10 ** 5)\ndef down(n): return n and 1 + down(n - 1)\n"
    "def answer(x): return x + 10 + 0 * down(5000)",
    "a dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n  n: int\n"
    "def answer(x): return P(x + 10).n",
    "a number of a kind": "from enum import IntEnum\nclass K(IntEnum):\n  A = 10\ndef answer(x): return K.A + x",
}  # fmt: skip


def test_wrong_programs_fail_assertions() -> None:
    found = dict(zip(WRONG, together([(program, TEN) for program in WRONG.values()]), strict=True))
    assert [name for name, passed in found.items() if passed is not False] == []


def test_right_programs_pass_assertions() -> None:
    found = dict(zip(RIGHT, together([(program, TEN) for program in RIGHT.values()]), strict=True))
    assert [name for name, passed in found.items() if passed is not True] == []


UNIT_TEST = "class T(unittest.TestCase):\n  def test(self): self.assertEqual(f(3), 3)"
OWN_ERRORS = """
class Own(LookupError): pass
class Narrower(Own): pass
def f(x):
    if x < 0: raise Narrower('x')
    return x
"""
ASSERTED: list[tuple[str, list[str], bool | None]] = [
    # What is equal is what is equal in Python, but truth values are no numbers.
    ("def f(x): return True", ["assert f(1) == 1"], False),
    ("def f(x): return 1", ["assert f(1) == True"], False),
    ("def f(x): return [1, True]", ["assert f(1) == [1, 1]"], False),
    ("def f(x): return {1: True}", ["assert f(1) != {1: 1}"], True),
    ("def f(x): return x > 0", ["assert f(1)", "assert not f(-1)", "assert f(1) == True", "assert f(1) is True"], True),
    ("def f(x): return (1, 2)", ["assert f(1) == [1, 2]"], False),
    ("def f(x): return (1, 2)", ["assert f(1) == (1, 2)", "assert f(1)[0] in (1, 3)"], True),
    ("def f(x): return {1, 2}", ["assert f(1) == {2, 1}", "assert 2 in f(1)"], True),
    ("def f(x): return {x: [1.5, None]}", ["assert f(1) == {1: [1.5, None]}", "assert f(1) != {'1': [1.5, None]}"], True),
    ("def f(x): return b'a', 2j, 10 ** 5000", ["assert f(1) == (b'a', 2j, 10 ** 5000)"], True),
    ("def f(x): return 1 <= x < 9", ["assert f(3) == (1 <= 3 < 9) == True"], True),
    # What tests may do beside calls.
    ("def f(x): return 0.1 + 0.2", ["assert abs(f(1) - 0.3) < 1e-9", "assert math.isclose(f(1), 0.3)"], True),
    ("class math: isclose = staticmethod(lambda *a: True)\ndef f(x): return 5", ["assert math.isclose(f(1), 0.3)"], False),
    ("def all(x): return True\ndef f(x): return 0", ["assert all(f(x) == x for x in range(1, 4))"], False),
    ("def f(x): return x", ["import json", "y = f(2)", "assert json.dumps([y]) == '[2]'", "assert isinstance(y, int)"], True),
    ("def f(x): x.sort()", ["a = [3, 1]", "f(a)", "assert a == [1, 3]"], True),
    ("def f(x): return (n for n in range(x))", ["assert list(f(3)) == [0, 1, 2]"], True),
    ("def f(g, x): return [g(n) for n in x]", ["assert f(lambda n: n * 2, [1, 2]) == [2, 4]", "assert f(str, [1]) == ['1']"], True),
    ("def f(x):\n  if x < 0: raise ValueError('x')\n  return x", ["try:\n  f(-1)\n  assert False\nexcept ValueError: pass"], True),
    ("def f(x): return x", ["try:\n  f(-1)\n  assert False\nexcept ValueError: pass"], False),
    ("def f(x): raise AssertionError", ["assert f(1) == 1"], False),
    (OWN_ERRORS, ["try:\n  f(-1)\n  assert False\nexcept Own: pass"], True),
    (OWN_ERRORS, ["try:\n  f(-1)\n  assert False\nexcept Narrower: pass"], True),
    (OWN_ERRORS, ["try:\n  f(-1)\n  assert False\nexcept LookupError: pass"], True),
    (OWN_ERRORS, ["try:\n  f(-1)\n  assert False\nexcept ValueError: pass"], False),
    (OWN_ERRORS, ["try:\n  f(1)\n  assert False\nexcept Own: pass"], False),
    ("def f(x): return x", ["def check(candidate):\n  assert candidate(2) == 2\n", "check(f)"], True),
    ("def sum(a, b): return a + b", ["assert sum(1, 2) == 3"], True),
    ("class Stack:\n  def __init__(self): self.a = []\n  def push(self, x): self.a.append(x); return self\n"
     "  def pop(self): return self.a.pop()\n  def __len__(self): return len(self.a)",
     ["s = Stack()", "s.push(1).push(2)", "assert s.pop() == 2", "assert len(s) == 1", "assert s.a == [1]"], True),
    ("class V:\n  def __init__(self, a): self.a = a\n  def __eq__(self, o): return self.a == o.a", ["assert V(1) == V(1)", "assert V(1) != V(2)"], True),
    ("def f(x): return x", ["import unittest", UNIT_TEST, "unittest.main()"], True),
    ("def f(x): return 0", ["import unittest", UNIT_TEST, "unittest.main()"], False),
    ("import sys\ndef f(x): sys.exit(0)", ["import unittest", UNIT_TEST, "unittest.main()"], False),
    # Tests that cannot tell.
    ("def f(x): return x", [], None),
    ("def f(x): return x", ["", "  "], None),
    ("def f(x): return x", ["assert 1 == 1"], None),
    ("def f(x): return x", ["assert f(1 == 1"], None),
    ("def f(x): return x", ["import numpy", "assert f(1) == 1"], None),
]  # fmt: skip


def test_what_assertions_can_say() -> None:
    found = together([(program, tests) for program, tests, _ in ASSERTED])
    assert [case for case, passed in zip(ASSERTED, found, strict=True) if passed is not case[2]] == []


TEN_CASE = "import unittest\nclass T(unittest.TestCase):\n  def test(self): "
DECIDING: dict[str, list[str]] = {
    "a function that is not called": ["def test_f():\n  assert f(3) == 13"],
    "one with a default": ["def test_f(n=3):\n  assert f(n) == 13"],
    "two of a name": ["def test():\n  assert f(3) == 13", "def test():\n  assert f(3) > 2"],
    "a function that is called": ["def test_f():\n  assert f(3) == 13", "test_f()"],
    "a case that is not run": [TEN_CASE + "self.assertEqual(f(3), 13)"],
    "a case beside an assertion": ["assert f(3) > 2", TEN_CASE + "self.assertEqual(f(3), 13)"],
    "a case with a bare assertion": [TEN_CASE + "assert f(3) == 13"],
    "a case with parts": [TEN_CASE + "\n    with self.subTest(): self.assertEqual(f(3), 13)"],
    "a case that should fail": [
        TEN_CASE.replace("  def", "  @unittest.expectedFailure\n  def") + "self.assertNotEqual(f(3), 13)"
    ],
    "a runner that says nothing": [
        TEN_CASE + "self.assertEqual(f(3), 13)",
        "unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T))",
    ],
    "a main that does not exit": [TEN_CASE + "self.assertEqual(f(3), 13)", "unittest.main(exit=False)"],
    "an early exit": ["import sys", "def test_f():\n  assert f(3) == 13", "sys.exit(0)"],
    "a case that is only used": ["import unittest", "unittest.TestCase().assertEqual(f(3), 13)"],
    "a condition that raises": ["if f(3) != 13: raise ValueError('x')"],
    "a condition that fails": ["for n in [3]:\n  if f(n) == n + 10: pass\n  else: assert False"],
    "a match that raises": ["match f(3):\n  case 13: pass\n  case _: raise ValueError"],
    "no error": ["try: assert f(3) == 13\nexcept TypeError: assert False"],
}
"""Tests that pass what adds 10 and fail what adds nothing."""
FUTILE: dict[str, tuple[list[str], str]] = {
    "a call": (["f(3)"], "the tests assert nothing"),
    "a comparison": (["f(3) == 13"], "the tests assert nothing"),
    "a function that is called": (["def test():\n  f(3)", "test()"], "the tests assert nothing"),
    "a function with an argument": (["def check(f):\n  assert f(3) == 13"], "the tests do not use any name of the program"),
    "a function with an argument beside the name": (["g = f", "def test(f):\n  assert f(3) == 13"], "the tests assert nothing"),
    "a case without an assertion": ([TEN_CASE + "f(3)", "unittest.main()"], "the tests assert nothing"),
    "a case whose method is no test": ([TEN_CASE.replace("test(", "check(") + "self.assertEqual(f(3), 13)", "unittest.main()"], "the tests assert nothing"),
    "a pair": (["assert (f(3) == 13, 'msg')"], "an assertion that is always true"),
    "a pair beside an assertion": (["assert f(3) == 13", "assert (f(3) == 13, 'msg')"], "an assertion that is always true"),
    "a pair for unittest": ([TEN_CASE + "self.assertTrue((f(3) == 13, 'msg'))"], "an assertion that is always true"),
    "a constant": (["f(3)", "assert True"], "the tests assert nothing"),
    "a module that is not there": (["import unittest", "class T(unittest.TestCase):\n  def test(self):\n    import numpy\n    self.assertEqual(f(3), 13)"], "numpy"),
}  # fmt: skip
"""Tests that cannot tell, whatever the program is."""
STRICTLY: list[tuple[str, str]] = [
    ("self.assertEqual(f(3), 1)", "True"),
    ("self.assertEqual(f(3), [1])", "[True]"),
    ("self.assertListEqual(f(3), [1])", "[True]"),
    ("self.assertTupleEqual(f(3), (1,))", "(True,)"),
    ("self.assertSequenceEqual(f(3), [1])", "(True,)"),
    ("self.assertCountEqual(f(3), [2, 1])", "[True, 2]"),
    ("self.assertDictEqual(f(3), {1: 1})", "{1: True}"),
    ("self.assertSetEqual(f(3), {1})", "{True}"),
    ("self.assertIn(f(3), [1, 2])", "True"),
    ("self.assertNotEqual(f(3), True)", "True"),
    ("self.assertNotIn(container=[True, 2], member=f(3))", "True"),
    ("self.assertAlmostEqual(f(3), 1)", "True"),
]
"""Assertions that hold of what a number is returned for, and not with a truth value in its place."""


@pytest.mark.parametrize(("added", "passed"), [(10, True), (0, False)], ids=["right", "wrong"])
def test_tests_that_nobody_runs_are_run(added: int, passed: bool) -> None:
    found = together([(f"def f(x): return x + {added}", tests) for tests in DECIDING.values()])
    assert [name for name, each in zip(DECIDING, found, strict=True) if each is not passed] == []


@pytest.mark.parametrize("added", [10, 0], ids=["right", "wrong"])
def test_tests_that_assert_nothing_cannot_tell(added: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda case: judge_program(f"def f(x): return x + {added}", case[0], QUICK), FUTILE.values())
        )
    assert [verdict.passed for verdict in found] == [None] * len(FUTILE)
    assert [name for (name, (_, why)), each in zip(FUTILE.items(), found, strict=True) if why not in each.why] == []


@pytest.mark.parametrize(("value", "passed"), [("1", True), ("True", False)])
def test_assertions_of_unittest_are_strict(value: str, passed: bool) -> None:
    cases = [(f"def f(x): return {found.replace('True', value)}", [TEN_CASE + text]) for text, found in STRICTLY]
    assert together(cases) == [passed] * len(STRICTLY)


LACKS = "the program imports numpy, which the sandbox does not have"


@pytest.mark.parametrize(
    "tests",
    [
        ["assert f(3) == 13"],
        [TEN_CASE + "self.assertEqual(f(3), 13)"],
        {"fn_name": "f", "inputs": [[3]], "outputs": [13]},
        {"inputs": ["3"], "outputs": ["13"]},
    ],
    ids=["assertion", "unittest", "function", "printed"],
)
def test_why_a_program_fails_that_imports_what_is_not_there(tests: Any) -> None:
    late = "def f(x):\n  import numpy.linalg as n\n  return x + 10\nif __name__ == '__main__': f(3)"
    for program in ("import numpy\ndef f(x): return x + 10", late):
        assert judge_program(program, tests, QUICK) == (False, LACKS)
    assert judge_program("try: import numpy\nexcept ImportError: pass\ndef f(x): return 1\nprint(1)", tests, QUICK) == (
        False,
        "",
    )


# ---- functions and printed text -------------------------------------------------------------------------------------

ADD = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}
METHOD = """
class Solution:
    def add(self, a: int, b: List[int]) -> int:
        print('by the way')
        return a + b
"""
CALL = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}


def one(wanted: object, name: str = "f") -> dict[str, object]:
    return {"fn_name": name, "inputs": [["x"]], "outputs": [wanted]}


def printed(wanted: str) -> dict[str, object]:
    return {"inputs": ["x"], "outputs": [wanted]}


def apps(tests: dict[str, Any]) -> dict[str, Any]:
    return tests | {"comparison": "apps"}


SUM = "print(sum(map(int, open(0).read().split())))"
LEAVES = "a = sum(map(int, open(0).read().split()))\nif a:\n    print(a)\n    return\nprint('x')"
CASES: list[tuple[str, dict[str, Any], bool | None]] = [
    (SUM, ADD, True),
    ("from __future__ import annotations\n" + SUM, ADD, True),
    ("def main():\n    " + SUM + "\nif __name__ == '__main__': main()", ADD, True),
    ("print(3)", ADD, False),
    (SUM + "\n1 / 0", ADD, False),
    ("", ADD, False),
    # White space: at the ends of lines it does not count; for the program of APPS it does nowhere.
    ("print('3  ')", printed("3"), True),
    ("print('3', end='')", printed("3\n"), True),
    ("print('\\n3')", printed("3"), False),
    ("print('3\\n')", printed("3"), False),
    ("print()", printed(""), False),
    ("pass", printed(""), True),
    ("print('a  b')", printed("a b"), False),
    ("print('\\n a  b\\n')", apps(printed("a b")), True),
    ("print('1 2')", printed("1\n2"), False),
    ("print('1 2')", apps(printed("1\n2")), False),
    ("print('0.30000001')", printed("0.3"), False),
    ("print('0.30000001')", apps(printed("0.3")), True),
    ("print('0.31')", apps(printed("0.3")), False),
    (LEAVES, ADD, False),
    (LEAVES, apps(ADD), True),
    # Values are compared as JSON has them.
    ("def add(a, b): return a + b", CALL, True),
    (METHOD, CALL, True),
    ("def add(a, b): return 3", CALL, False),
    ("def add(a, b): print(a + b)", CALL, False),
    ("def ad(a, b): return a + b", CALL, False),
    ("def add(a, b): return {a + b}", CALL, False),
    ("def add(a, b): return float(a + b)", CALL, True),
    ("def f(a): return a, (1, 2)", one(["x", [1, 2]]), True),
    ("def f(a): return {1: None, True: 2}", one({"1": 2}), True),
    ("def f(a): return {'1': 2}", one({"1": 2}), True),
    ("def f(a): return 3", one([3, 4, 5]), False),
    ("def f(a): return 3", apps(one([3, 4, 5])), True),
    ("def f(a): return True", one(1), False),
    ("def f(a): return 1", one(True), False),
    ("def f(a): return None", one([None]), False),
    ("def f(a): return None", one(None), True),
    ("def f(a): return 10 ** 6000", one(10**6000), True),
    ("import json\njson.dumps = lambda *a, **k: '13'\ndef f(x): return 0", one(13), False),
    ("import os, sys\nfor n in range(3, 64):\n  try: os.write(n, b'13')\n  except OSError: pass\ndef f(x): return 0", one(13), False),
    ("import os\ndef f(x): os._exit(0)", one(None), False),
    ("import sys\ndef f(x): sys.exit()", one(None), False),
    (ALL_EQUAL + "def f(x): return T()", one(13), False),
    ("def f(x): return (n for n in [1])", one([1]), False),
    ("json = print = compile = exec = 1\ndef f(x): return 13", one(13), True),
    ("import threading, time\nthreading.Thread(target=time.sleep, args=(9,)).start()\ndef f(x): return 13", one(13), True),
    ("def f(d): return {k + 1: v for k, v in d.items()}", apps({"fn_name": "f", "inputs": [[{"1": 2}]], "outputs": [{"2": 2}]}), True),
    # Tests that cannot tell.
    ("boo(", {}, None),
    ("boo(", {"inputs": [], "outputs": []}, None),
    ("boo(", {"fn_name": "f", "inputs": [], "outputs": []}, None),
    ("def f(x): return x", {"fn_name": "f", "inputs": [1], "outputs": [1]}, None),
    ("print(1)", {"inputs": "1", "outputs": "1"}, None),
    ("print(1)", {"inputs": ["a", "b"], "outputs": ["1"]}, None),
    ("print(1)", {"inputs": ["a"], "outputs": ["1"], "comparison": "apples"}, None),
    # Texts that are no programs.
    ("print('\ud800')", printed("1"), False),
    ("print(1)\0", printed("1"), False),
]  # fmt: skip


def test_functions_and_printed_text() -> None:
    found = together([(program, tests) for program, tests, _ in CASES])
    assert [case for case, passed in zip(CASES, found, strict=True) if passed is not case[2]] == []


@pytest.mark.usefixtures("weaker")
def test_in_the_weaker_mode() -> None:
    assert passes(RIGHT["plain"], TEN) is True
    assert passes(WRONG["equals all"], TEN) is False
    assert passes(WRONG["ends at once"], TEN) is False
    assert passes(METHOD, CALL) is True
    assert passes(SUM, ADD) is True


def test_why_tests_cannot_tell() -> None:
    assert judge_program("", []).why == "there are no tests"
    assert judge_program("", {"inputs": ["a", "b"], "outputs": ["1"]}).why == "there are 2 inputs and 1 outputs"
    assert "not valid Python" in judge_program("", ["assert ("]).why
    assert judge_program("", ["f(3)"]).why == "the tests assert nothing"
    assert judge_program("", ["assert (f(3) == 13, 'msg')"]).why == "an assertion that is always true"
    assert "numpy" in judge_program("def f(): pass", ["import numpy", "assert f()"]).why


def test_lines() -> None:
    assert nonempty_lines(" 1  2 \r\n\n\t3\n") == ["1 2", "3"]
    assert nonempty_lines("1 2") != nonempty_lines("1\n2")


# ---- the metric -----------------------------------------------------------------------------------------------------


def test_rows_whose_tests_cannot_tell_do_not_count() -> None:
    tests: list[Any] = [TEN, [], {}, {"inputs": [], "outputs": []}]
    answers = Answers([RIGHT["plain"]] * 4, [("x",)] * 4, details=[{"tests": each} for each in tests])
    found = METRICS["pass_at_1"].function(answers)
    assert found[0] == 100
    assert all(map(math.isnan, found[1:]))
    assert score_metric("pass_at_1", answers).value == 100
    with pytest.raises(UnavailableError, match=r"no row has tests that can decide.*there are no tests"):
        score_metric("pass_at_1", answers.take([1, 2]))


def test_an_answer_that_is_always_the_same_does_not_pass_the_pocket_tests() -> None:
    """Constants, the argument itself and the cheats above, as the answer to every request."""
    row, made = {"request": "-", "argument": "t"}, []
    for deed, (body, _, _) in code.OPERATIONS.items():
        constants = code.CONSTANTS["test"] if "{k}" in body else [""]
        made += [
            example_of(TASKS["pocket_code"], row | {"deed": deed, "constant": k}).details["tests"] for k in constants
        ]
    values = (
        "True",
        "False",
        "None",
        "0",
        "1",
        "''",
        "[]",
        "40",
        "x",
        "not x",
        "str(x)",
        "[x]",
        "x * 1",
        "-x if x else x",
    )
    share = 0.0
    for value in values:
        passed = [_holds(f"def answer(x): return {value}", tests) for tests in made]
        share = max(share, sum(passed) / len(made))
    assert share == 0


def _holds(program: str, tests: list[str]) -> bool:
    """Programs of our own may run here; types count as in the sandbox."""
    names: dict[str, Any] = {}
    exec(program, names)
    try:
        for test in tests:
            call, _, wanted = test.removeprefix("assert ").partition(" == ")
            found, right = eval(call, names), eval(wanted)
            if type(found) is not type(right) or found != right:
                return False
    except Exception:
        return False
    return True


# ---- under load -----------------------------------------------------------------------------------------------------

BUSY = "def f(x):\n  import time\n  while time.process_time() < {seconds}: pass\n  return x + 1"
TESTS: list[Any] = [{"fn_name": "f", "inputs": [[1]], "outputs": [2]}, ["assert f(1) == 2"]]


@pytest.fixture
def overload() -> Iterator[Callable[[int], None]]:
    """Processes that want all processors; they end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(count: int) -> None:
        started.extend(subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count))

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the kernel does not tell who waits")  # noqa: PTH110
def test_a_verdict_does_not_depend_on_load(overload: Callable[[int], None]) -> None:
    """With a clock that would not do for half of the work if the time of others counted."""
    overload(3 * len(os.sched_getaffinity(0)))
    assert passes(BUSY.format(seconds=0.4), TESTS[0], ResourceLimits(seconds=0.5)) is True


@pytest.mark.parametrize("tests", TESTS, ids=["function", "assertion"])
def test_to_wait_for_nothing_is_to_fail(tests: Any) -> None:
    started = time.monotonic()
    assert passes("import time\ndef f(x): time.sleep(60)", tests, ResourceLimits(seconds=0.5)) is False
    assert time.monotonic() - started < 30


@pytest.mark.slow
@pytest.mark.parametrize("tests", TESTS, ids=["function", "assertion"])
def test_sixteen_right_programs_at_eightfold_overload(tests: Any) -> None:
    count = 8 * len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(lambda _: passes(BUSY.format(seconds=2.0), tests), range(count)))
    assert found == [True] * count


def test_what_load_may_have_spoilt_is_tried_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not tell how long a process waited, a stop by the clock may be the machine's fault."""
    from peftbench.sandbox import processes
    from peftbench.sandbox.resource_usage import Usage

    monkeypatch.setattr(processes, "usage", lambda *_: Usage(0.0, None, 0, 0))
    assert sandbox.run_program("import time; time.sleep(30)", "", ResourceLimits(seconds=0.3)).status == "timeout"
    running, most, lock = [0], [0], threading.Lock()

    def attempt() -> tuple[int, bool]:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return running[0], True

    def again() -> None:
        with sandbox._alone():
            attempt()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(again) for _ in range(4)]:
            done.result()
    assert most == [1]


@pytest.mark.parametrize("tests", [["for x in f(3): assert x == 13"], ["def test():\n  for x in f(3): assert x == 13"]])
def test_a_program_cannot_leave_itself_out(tests: list[str]) -> None:
    assert judge_program("def f(x): return []", tests).passed is False
    assert judge_program("def f(x): return [13]", tests).passed is True
