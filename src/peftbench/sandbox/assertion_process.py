"""The process of the tests: assertions on the names of a program in another sandbox (`program_process.py`)."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import itertools
import operator
import symtable
import sys

from peftbench.sandbox.program_process import Channel, ProgramError, report_to, same_value

TYPE_CHECKING = False  # as in `program_process.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeGuard

    from peftbench.sandbox.program_process import Codes


def test(given: dict[str, Any], _: Codes, report: int) -> None:
    """Run assertions on the names of a program in another sandbox, and report whether they hold.

    The report is `[true]`, `[false, why]`, or `[null, why]` if they cannot be decided.
    """
    channel = Channel(given["channel"], {})

    def called_back(function: Any, *arguments: Any, **named: Any) -> Any:
        # The program may only call the functions that the tests passed to it.
        if not any(function is held for held in channel.kept):
            raise ValueError("not a function that the tests passed")
        return function(*arguments, **named)

    channel.answers["call"] = called_back
    text = given["tests"]
    module = type(sys)("__main__")
    sys.modules["__main__"] = module  # `unittest.main` collects tests from this module
    names = module.__dict__
    watch = AssertionLog()
    names |= {"__builtins__": builtins, COMPARE: _compare, COUNT: watch.count, NOTE: watch.note}
    try:
        plain, tree = ast.parse(text), ast.parse(text)
        futile = futility(tree)
        code = compile(ast.fix_missing_locations(Comparing().visit(tree)), "tests.py", "exec")
        wanted, modules = names_to_define(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        return report_to(report, [None, f"the tests are not valid Python: {error}"])
    if not wanted:
        futile = "the tests do not use any name of the program"
    if futile:
        return report_to(report, [None, futile])
    try:
        if "unittest" in text:  # it is slow to import
            watch_unittest(watch)
        names |= {name: importlib.import_module(name) for name in modules}
        names |= {name: channel.ask("name", name) for name in wanted if channel.ask("has", name) is True}
        _to_the_end(lambda: exec(code, names))  # noqa: S102
        watch.run_the_rest()
    except ImportError as error:
        if isinstance(error.__cause__, ProgramError):
            return report_to(report, [False, "the program imports a missing module"])
        return report_to(report, [None, f"the tests import a missing module: {error}"])
    except BaseException as error:
        return report_to(report, [False, f"{type(error).__name__}: {error}"[:300]])
    if not watch.asserted and (watch.ran or asserts_at_top(plain)):
        # Otherwise a program could avoid all assertions, for example with an empty list whose items are asserted.
        return report_to(report, [False, "no assertion of the tests was reached with the values of the program"])
    return report_to(report, [True] if watch.asserted else [None, NOTHING])


def _to_the_end(run: Callable[[], Any]) -> None:
    """What the program raises is no `SystemExit` on this side: the tests have ended themselves."""
    try:
        run()
    except SystemExit as end:
        if end.code:
            raise AssertionError("the tests ended early") from end


def names_to_define(text: str) -> tuple[list[str], list[str]]:
    """Return the names that tests use and do not define: those that the program must define, and those of modules.

    A name of a standard module counts as the program's only if it is called. A built-in name does so only if it is
    called and there is no other name.
    """
    table = symtable.symtable(text, "tests.py", "exec")
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    free = sorted({name for name in _global_names(table) if name not in own and name[:2] != "__"})
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    modules = [name for name in free if name in sys.stdlib_module_names and name not in called]
    wanted = [name for name in free if name not in modules and not hasattr(builtins, name)]
    return wanted or [name for name in free if hasattr(builtins, name) and name in called], modules


def _global_names(table: symtable.SymbolTable) -> Iterator[str]:
    at_top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or at_top):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _global_names(child)


# ---- what tests assert ----------------------------------------------------------------------------------------------

COMPARE, COUNT, NOTE = "__peftbench_compare__", "__peftbench_count__", "__peftbench_note__"
NOTHING = "the tests assert nothing"


def futility(tree: ast.AST) -> str:
    """Return why tests would pass for every program, by their source; empty if they would not."""
    nodes = list(ast.walk(tree))
    if any(_always_true(node) for node in nodes):
        return "an assertion that is always true"
    return "" if any(isinstance(node, ast.Assert | ast.Raise) or _of_unittest(node) for node in nodes) else NOTHING


def asserts_at_top(node: ast.AST) -> bool:
    """Return True if tests have an assertion outside of functions and classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(child, ast.Assert) and not isinstance(child.test, ast.Constant):
            return True
        if asserts_at_top(child):
            return True
    return False


def _always_true(node: ast.AST) -> bool:
    """Return True if a node asserts a literal container, usually a tuple of a condition and a message."""
    if isinstance(node, ast.Call) and _of_unittest(node.func) and node.func.attr in ("assertTrue", "assert_"):
        asserted = node.args[0] if node.args else None
    else:
        asserted = node.test if isinstance(node, ast.Assert) else None
    if isinstance(asserted, ast.Tuple | ast.List | ast.Set):
        return not all(isinstance(one, ast.Starred) for one in asserted.elts)
    return isinstance(asserted, ast.GeneratorExp | ast.Lambda)


def _of_unittest(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and _asserts(node.attr)


def _asserts(name: str) -> bool:
    return name.startswith("assert") or name == "fail"


class AssertionLog:
    """The tests that were defined and run, and the assertions reached so far."""

    def __init__(self) -> None:
        self.asserted = 0
        self.tests: list[Callable[[], Any]] = []
        self.cases: list[Any] = []
        self.ran: set[Any] = set()
        self.problems: list[BaseException] = []

    def count(self) -> None:
        self.asserted += 1

    def note(self, defined: Any) -> Any:
        """Wrap a function or class of the tests: a test without arguments records that it was run."""
        if isinstance(defined, type):
            self.cases.append(defined)
        if not isinstance(defined, type(_asserts)) or not _is_test(defined):
            return defined

        @functools.wraps(defined)
        def noted(*arguments: Any, **named: Any) -> Any:
            self.ran.add(noted)
            return defined(*arguments, **named)

        self.tests.append(noted)
        return noted

    def run_the_rest(self) -> None:
        """Run the tests that were defined and not yet run. Raises the error of the first that fails."""
        for test in self.tests:
            if test not in self.ran:
                _to_the_end(test)
        if unittest := sys.modules.get("unittest"):
            load = unittest.defaultTestLoader.loadTestsFromTestCase
            cases = [one for one in self.cases if issubclass(one, unittest.TestCase) and one not in self.ran]
            unittest.TestSuite(map(load, cases)).run(unittest.TestResult())
        for problem in self.problems:
            raise problem


def _is_test(function: Any) -> bool:
    """Return True if a function is defined in the module, is not a method, and can be called without arguments."""
    needed = function.__code__.co_argcount - len(function.__defaults__ or ())
    named = function.__code__.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    return needed <= 0 and named <= 0 and "." not in function.__qualname__


def watch_unittest(watch: AssertionLog) -> None:
    """Patch `unittest` to record the tests that run and fail, and to compare values like plain assertions."""
    unittest: Any = importlib.import_module("unittest")
    case, result = unittest.TestCase, unittest.TestResult
    unittest.main = functools.partial(unittest.main, exit=False)

    def looked_up(self: Any, name: str) -> Any:
        if _asserts(name):
            watch.count()
        return object.__getattribute__(self, name)

    def failed(*told: Any) -> None:
        if told[-1] is not None:  # otherwise a subtest would not count as failed
            watch.problems.append(told[-1][1])

    def succeeded(_: Any) -> None:
        watch.problems.append(AssertionError("a test that should fail has not failed"))

    case.__getattribute__ = looked_up
    _precede(result, "startTest", lambda test: watch.ran.add(type(test)))
    _precede(result, "addUnexpectedSuccess", succeeded)
    for name in ("addFailure", "addError", "addSubTest"):
        _precede(result, name, failed)
    for name, (holds, also) in STRICT.items():
        setattr(case, name, _strict(getattr(case, name), holds, also))


def _precede(kind: type, name: str, before: Callable[..., Any]) -> None:
    plain = getattr(kind, name)

    def both(self: Any, *arguments: Any) -> Any:
        before(*arguments)
        return plain(self, *arguments)

    setattr(kind, name, both)


def _strict(plain: Any, holds: Callable[[Any, Any], bool], also: bool) -> Callable[..., None]:
    first, second = plain.__code__.co_varnames[1:3]

    def assertion(self: Any, *arguments: Any, **named: Any) -> None:
        if also:
            plain(self, *arguments, **named)
        values = dict(zip((first, second), arguments, strict=False)) | named
        if not holds(values[first], values[second]):
            raise self.failureException

    return assertion


# ---- comparisons ----------------------------------------------------------------------------------------------------


def _within(one: Any, all_: Iterable[Any]) -> bool:
    if isinstance(all_, list | tuple | set | frozenset | dict):
        return any(same_value(one, each) for each in all_)
    return one in all_


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Eq": same_value,
    "NotEq": lambda left, right: not same_value(left, right),
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "Is": operator.is_,
    "IsNot": operator.is_not,
    "In": _within,
    "NotIn": lambda left, right: not _within(left, right),
}
"""Comparisons by their class names in `ast`."""


def _same_items(first: Iterable[Any], second: Iterable[Any]) -> bool:
    left = list(second)
    for one in first:
        place = next((i for i, other in enumerate(left) if same_value(one, other)), None)
        if place is None:
            return False
        del left[place]
    return not left


STRICT: dict[str, tuple[Callable[[Any, Any], bool], bool]] = {
    **dict.fromkeys(
        ("assertEqual", "assertListEqual", "assertTupleEqual", "assertDictEqual", "assertSetEqual"), (same_value, True)
    ),
    "assertSequenceEqual": (lambda left, right: same_value(list(left), list(right)), True),
    "assertCountEqual": (_same_items, False),
    "assertAlmostEqual": (lambda left, right: isinstance(left, bool) == isinstance(right, bool), True),
    "assertNotEqual": (lambda left, right: not same_value(left, right), False),
    "assertIn": (_within, False),
    "assertNotIn": (lambda left, right: not _within(left, right), False),
}
"""The comparisons for assertions of `unittest`, and whether the original assertion must hold too."""


class Comparing(ast.NodeTransformer):
    """Rewrites comparisons of tests to compare values (`same`), and records definitions and assertions."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        return node if isinstance(node.test, ast.Constant) else [_count(node), node]

    def _may_refuse(self, node: ast.AST) -> ast.AST | list[ast.AST]:
        """Record reaching a statement that may reject wrong values by `raise`, which is not an assertion."""
        refuses = any(isinstance(one, ast.Raise) or _refuses(one) for one in ast.walk(node))
        self.generic_visit(node)
        return [_count(node), node] if refuses else node

    visit_If = visit_For = visit_While = visit_Match = visit_Try = visit_With = _may_refuse  # noqa: N815

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._noted(node) if node.name.startswith("test") else self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._noted(node)

    def _noted(self, node: ast.FunctionDef | ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.decorator_list.insert(0, ast.copy_location(ast.Name(NOTE, ast.Load()), node))
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        names = ast.Tuple([ast.Constant(type(one).__name__) for one in node.ops], ast.Load())
        made = ast.Call(ast.Name(COMPARE, ast.Load()), [names, node.left, *node.comparators], [])
        return ast.copy_location(made, node)


def _refuses(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant) and not node.test.value


def _count(node: ast.AST) -> ast.AST:
    return ast.copy_location(ast.Expr(ast.Call(ast.Name(COUNT, ast.Load()), [], [])), node)


def _compare(names: Sequence[str], *values: Any) -> bool:
    return all(COMPARISONS[name](*pair) for name, pair in zip(names, itertools.pairwise(values), strict=True))
