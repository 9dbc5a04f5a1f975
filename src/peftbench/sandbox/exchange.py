"""What runs inside the sandbox when a program is tried: the program's side, the side of its tests, and between them
values as JSON.

The program and its tests are two processes, each in a box of its own. The tests send one call at a time and get values
back, never objects: what a program returns cannot answer for itself whether it is what was wanted, and nothing of the
tests but the arguments of a call is ever where the program is. This file imports the standard library alone: the
boxes are given its text.
"""

import ast
import builtins
import collections
import decimal
import fractions
import importlib
import itertools
import json
import operator
import os
import socket
import symtable
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

# ---- values as JSON -------------------------------------------------------------------------------------------------

Keep = Callable[[Any], Any]
Inner = Callable[[Any], Any]
written, read, write = json.JSONEncoder().encode, json.JSONDecoder().decode, os.write
"""Held here, as a program may put others in the place of what a module has."""
LONG = 1 << 63
"""Whole numbers from here on are told in hexadecimal digits, which are read in linear time."""


def _integer(value: int, _: Inner) -> Any:
    plain = int.__pos__(value)
    return plain if -LONG < plain < LONG else {"int": hex(plain)}


def _sequence(kind: Any) -> tuple[Any, Callable[[Any, Inner], Any]]:
    return kind, lambda value, inner: {kind.__name__: [inner(one) for one in kind.__iter__(value)]}


def _text(kind: Any, tell: Callable[[Any], str]) -> tuple[Any, Callable[[Any, Inner], Any]]:
    return kind, lambda value, _: {kind.__name__: tell(value)}


TOLD: tuple[tuple[Any, Callable[[Any, Inner], Any]], ...] = (
    (int, _integer),
    (float, lambda value, _: float.__pos__(value)),
    (str, lambda value, _: str.__str__(value)),
    (list, lambda value, inner: [inner(one) for one in list.__iter__(value)]),
    (dict, lambda value, inner: {"dict": [[inner(key), inner(one)] for key, one in dict.items(value)]}),
    (range, lambda value, _: {"range": [value.start, value.stop, value.step]}),
    *map(_sequence, (tuple, set, frozenset, collections.deque)),
    _text(bytes, bytes.hex),
    _text(bytearray, bytearray.hex),
    _text(complex, complex.__repr__),
    _text(fractions.Fraction, fractions.Fraction.__str__),
    _text(decimal.Decimal, decimal.Decimal.__str__),
)
"""How values are told, by their class or one that it is derived from."""


def encode(value: Any, keep: Keep) -> Any:
    """A value in JSON's types. What equals what in Python stays so: a list is no tuple, and `True` is told from 1.

    A value of a class derived from a built-in one becomes a plain value of that. `keep` tells of all other objects.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Remote):
        return {"object": keep(value)}
    for kind, tell in TOLD:
        if isinstance(value, kind):
            return tell(value, lambda one: encode(one, keep))
    name = getattr(value, "__name__", None)
    if isinstance(name, str) and getattr(builtins, name, None) is value:
        return {"builtin": name}
    return {"object": keep(value)}


def decode(told: Any, meet: Callable[[Any], Any]) -> Any:
    """The value that JSON tells of; `meet` makes something of an object on the other side. Raises `ValueError`."""
    if isinstance(told, list):
        return [decode(one, meet) for one in told]
    if not isinstance(told, dict):
        return told
    if len(told) != 1:
        raise ValueError("not a value")
    ((name, content),) = told.items()
    if name not in READ:
        raise ValueError("not a value")
    return READ[name](content, lambda one: decode(one, meet)) if name != "object" else meet(content)


READ: dict[str, Callable[[Any, Inner], Any]] = {
    "int": lambda content, _: int(content, 16),
    "dict": lambda content, inner: {inner(key): inner(one) for key, one in content},
    "range": lambda content, _: range(*content),
    "tuple": lambda content, inner: tuple(map(inner, content)),
    "set": lambda content, inner: set(map(inner, content)),
    "frozenset": lambda content, inner: frozenset(map(inner, content)),
    "deque": lambda content, inner: collections.deque(map(inner, content)),
    "bytes": lambda content, _: bytes.fromhex(content),
    "bytearray": lambda content, _: bytearray.fromhex(content),
    "complex": lambda content, _: complex(content),
    "Fraction": lambda content, _: fractions.Fraction(content),
    "Decimal": lambda content, _: decimal.Decimal(content),
    "builtin": lambda content, _: getattr(builtins, content),
    "object": lambda content, _: content,
}
"""How values are read, by the name that they are told under."""


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal in Python, but for truth values, which are no numbers here: `True` is not 1."""
    if isinstance(left, bool) != isinstance(right, bool):
        return not isinstance(left, int | float | complex) and bool(left == right)
    if type(left) is type(right) and isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        keys = {(isinstance(key, bool), key) for key in left} == {(isinstance(key, bool), key) for key in right}
        return keys and all(same(left[key], right[key]) for key in left)
    if isinstance(left, set | frozenset) and isinstance(right, set | frozenset):
        return left == right and {x for x in left if isinstance(x, bool)} == {x for x in right if isinstance(x, bool)}
    return bool(left == right)


# ---- calls from one process to the other ----------------------------------------------------------------------------


class Channel:
    """Questions and answers over a socket, one JSON text a line; while one side waits, it may be asked itself."""

    def __init__(self, descriptor: int, answers: "dict[str, Callable[..., Any]]") -> None:
        self.file = socket.socket(fileno=descriptor).makefile("rwb")
        self.answers = answers
        self.kept: list[Any] = []

    def keep(self, value: Any) -> Any:
        """The number by which the other side knows an object of this one, or that it gave to one of its own."""
        if isinstance(value, Remote):
            return {"yours": object.__getattribute__(value, "_number")}
        for number, held in enumerate(self.kept):
            if held is value:
                return number
        self.kept.append(value)
        return len(self.kept) - 1

    def meet(self, number: Any) -> Any:
        return self.kept[number["yours"]] if isinstance(number, dict) else Remote(self, number)

    def send(self, content: dict[str, Any]) -> None:
        self.file.write(written(content).encode() + b"\n")
        self.file.flush()

    def ask(self, what: str, *arguments: Any, **named: Any) -> Any:
        """An answer of the other side. Raises what it raised, if that is a built-in exception, else `ProgramError`."""
        self.send(
            {
                "ask": what,
                "with": encode(list(arguments), self.keep),
                "named": {name: encode(value, self.keep) for name, value in named.items()},
            }
        )
        told = self.attend()
        if told is None:
            raise EndedError
        if "raised" in told:
            raise _error(told["raised"])
        for place, content in told.get("changed", []):
            _become(arguments[place], decode(content, self.meet))
        return decode(told["value"], self.meet)

    def attend(self) -> dict[str, Any] | None:
        """Answer questions until an answer comes; `None` when the other side has ended."""
        for line in self.file:
            told = read(line.decode())
            if "ask" not in told:
                return dict(told)
            self.send(self.answer(told))
        return None

    def answer(self, told: dict[str, Any]) -> dict[str, Any]:
        try:
            arguments = decode(told["with"], self.meet)
            named = {name: decode(value, self.meet) for name, value in told["named"].items()}
            value = self.answers[told["ask"]](*arguments, **named)
            after = [encode(one, self.keep) for one in arguments]
            changed = [[i, now] for i, (was, now) in enumerate(zip(told["with"], after, strict=True)) if was != now]
            return {"value": encode(value, self.keep), "changed": changed}
        except BaseException as error:
            return {"raised": [kind.__name__ for kind in type(error).__mro__]}


class ProgramError(Exception):
    """The program raised something that is no built-in exception."""


class EndedError(ProgramError):
    """The program has ended."""


def _error(names: Sequence[str]) -> Exception:
    """The nearest built-in exception; what would end a process is an error like any other here."""
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                return kind()
            except TypeError:
                break
    return ProgramError(", ".join(names[:1]))


def _become(held: Any, now: Any) -> None:
    """Give a container the content that it has after a call on the other side."""
    if isinstance(held, list | bytearray):
        held[:] = now
    elif isinstance(held, dict | set):
        held.clear()
        held.update(now)
    elif isinstance(held, collections.deque):
        held.clear()
        held.extend(now)


class Remote:
    """An object of the other side. It can be called and looked into, and equals nothing but others of its kind."""

    def __init__(self, channel: Channel, number: int) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_number", number)

    def _ask(self, what: str, *arguments: Any, **named: Any) -> Any:
        return object.__getattribute__(self, "_channel").ask(what, self, *arguments, **named)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        # Not through `_ask`: what a call changes in its arguments is told by their places.
        return object.__getattribute__(self, "_channel").ask("call", self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def __iter__(self) -> Iterator[Any]:
        made: Iterator[Any] = self._ask("iterate")
        return made if isinstance(made, Remote) else iter(made)

    def __next__(self) -> Any:
        return self._ask("next")

    def __len__(self) -> int:
        return int(self._ask("length"))

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __bool__(self) -> bool:
        return self._ask("truth") is True

    def __str__(self) -> str:
        return str(self._ask("text"))

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._ask("equal", other) is True

    def __hash__(self) -> int:
        return int(object.__getattribute__(self, "_number"))


def _call(function: Any, *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right)


# ---- the program's side ---------------------------------------------------------------------------------------------


Codes = Iterable[types.CodeType]
"""The program, compiled, in the order in which its parts are run."""


def _module(codes: Codes) -> dict[str, Any]:
    """The names of a program that has been run as a module, not as `__main__`: it is there to be called."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    for code in codes:
        exec(code, module.__dict__)  # noqa: S102 (this is the inside of the box)
    return module.__dict__


def call(given: dict[str, Any], codes: Codes, report: int) -> None:
    """Call one function of the program, or a method of its class `Solution`, and report the value."""
    arguments = decode(given["arguments"], lambda _: None)
    names = _module(codes)
    owner = names["Solution"]() if "Solution" in names else types.SimpleNamespace(**names)
    value = encode(getattr(owner, given["name"])(*arguments), lambda _: None)
    _report(report, value)


def serve(given: dict[str, Any], codes: Codes, report: int) -> None:
    """Let the other side use what the program defines, until it has ended."""
    os.close(report)
    channel = Channel(given["channel"], {})
    names = _module(codes)
    channel.answers |= {
        "name": lambda name: names[name],
        "has": lambda name: name in names,
        "call": _call,
        "get": getattr,
        "set": setattr,
        "iterate": iter,
        "next": next,
        "length": len,
        "item": operator.getitem,
        "truth": bool,
        "text": str,
        "equal": _equal,
    }
    channel.attend()
    os._exit(0)


def _report(descriptor: int, content: Any) -> None:
    text = written(content).encode() + b"\n"
    while text:
        text = text[write(descriptor, text) :]


# ---- the side of the tests ------------------------------------------------------------------------------------------


def test(given: dict[str, Any], _: Codes, report: int) -> None:
    """Run assertions on the names of a program that is in another box, and report whether they hold.

    Reported is `[true]`, or `[false, why]`, or `[null, why]` where they cannot be decided.
    """
    channel = Channel(given["channel"], {"call": _call})
    text = given["tests"]
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, COMPARE: _compare}
    try:
        tree = ast.fix_missing_locations(Comparing().visit(ast.parse(text)))
        code = compile(tree, "tests.py", "exec")
        wanted, modules = candidates(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        return _report(report, [None, f"the tests are no Python: {error}"])
    if not wanted:
        return _report(report, [None, "the tests use nothing that a program defines"])
    try:
        names |= {name: importlib.import_module(name) for name in modules}
        names |= {name: channel.ask("name", name) for name in wanted if channel.ask("has", name) is True}
        exec(code, names)  # noqa: S102
    except ImportError as error:
        return _report(report, [None, f"the tests import what is not there: {error}"])
    except BaseException as error:
        return _report(report, [False, f"{type(error).__name__}: {error}"[:300]])
    return _report(report, [True])


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
