"""The side of the tests: assertions on what a program defines that is in another box (`exchange.py`)."""

from __future__ import annotations

import ast
import builtins
import importlib
import itertools
import operator
import symtable
import sys

from peftbench.sandbox.exchange import Channel, ProgramError, report_to, same

TYPE_CHECKING = False  # as in `exchange.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from peftbench.sandbox.exchange import Codes


def test(given: dict[str, Any], _: Codes, report: int) -> None:
    """Run assertions on the names of a program that is in another box, and report whether they hold.

    Reported is `[true]`, or `[false, why]`, or `[null, why]` where they cannot be decided.
    """
    channel = Channel(given["channel"], {})

    def called_back(function: Any, *arguments: Any, **named: Any) -> Any:
        # The program may call what the tests gave it, and nothing else that is on this side.
        if not any(function is held for held in channel.kept):
            raise ValueError("not a function of the tests")
        return function(*arguments, **named)

    channel.answers["call"] = called_back
    text = given["tests"]
    module = type(sys)("__main__")
    sys.modules["__main__"] = module  # where `unittest.main` looks for tests
    names = module.__dict__
    names |= {"__builtins__": builtins, COMPARE: _compare}
    try:
        tree = ast.fix_missing_locations(Comparing().visit(ast.parse(text)))
        code = compile(tree, "tests.py", "exec")
        wanted, modules = candidates(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        return report_to(report, [None, f"the tests are no Python: {error}"])
    if not wanted:
        return report_to(report, [None, "the tests use nothing that a program defines"])
    try:
        names |= {name: importlib.import_module(name) for name in modules}
        names |= {name: channel.ask("name", name) for name in wanted if channel.ask("has", name) is True}
        exec(code, names)  # noqa: S102
    except SystemExit as end:
        # As `unittest.main` does; what the program raises is no `SystemExit` on this side.
        return report_to(report, [True] if not end.code else [False, "the tests ended early"])
    except ImportError as error:
        if isinstance(error.__cause__, ProgramError):
            return report_to(report, [False, "the program imports what is not there"])
        return report_to(report, [None, f"the tests import what is not there: {error}"])
    except BaseException as error:
        return report_to(report, [False, f"{type(error).__name__}: {error}"[:300]])
    return report_to(report, [True])


def candidates(text: str) -> tuple[list[str], list[str]]:
    """The names that tests use and do not define: those that the program has to define, and those of modules.

    A module of the standard library is the program's only if it is called; so is a built-in name, if there is no other.
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


COMPARE = "__peftbench_compare__"


def _within(one: Any, all_: Iterable[Any]) -> bool:
    if isinstance(all_, list | tuple | set | frozenset | dict):
        return any(same(one, each) for each in all_)
    return one in all_


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Eq": same,
    "NotEq": lambda left, right: not same(left, right),
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "Is": operator.is_,
    "IsNot": operator.is_not,
    "In": _within,
    "NotIn": lambda left, right: not _within(left, right),
}
"""By the names that `ast` has for them."""


class Comparing(ast.NodeTransformer):
    """Makes every comparison of tests one of values (`same`)."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        names = ast.Tuple([ast.Constant(type(one).__name__) for one in node.ops], ast.Load())
        made = ast.Call(ast.Name(COMPARE, ast.Load()), [names, node.left, *node.comparators], [])
        return ast.copy_location(made, node)


def _compare(names: Sequence[str], *values: Any) -> bool:
    return all(COMPARISONS[name](*pair) for name, pair in zip(names, itertools.pairwise(values), strict=True))
