"""The process of the program inside the sandbox, and the encoding of values and calls as JSON.

The program and its tests are two processes in separate sandboxes. The tests (`assertion_process.py`) send one call at a
time and receive values, never objects, so a returned object cannot influence its own comparison. The program only
receives the arguments of calls. This file imports few modules, all from the standard library, since the sandboxes get
its source.
"""

from __future__ import annotations

import builtins
import collections
import json
import operator
import os
import sys

TYPE_CHECKING = False  # `typing` would be the slowest import of all
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import CodeType
    from typing import Any

    Keep = Callable[[Any], Any]
    Inner = Callable[[Any], Any]
    Tell = Callable[[Any, Inner], Any]
    Codes = Iterable[CodeType]

# ---- values as JSON -------------------------------------------------------------------------------------------------

written, read, write = json.JSONEncoder().encode, json.JSONDecoder().decode, os.write
show_error = sys.excepthook
"""References to functions, since a program may replace the attributes of modules."""
LONG = 1 << 63
"""Integers from here on are encoded in hexadecimal digits, which are parsed in linear time."""


def _integer(value: int, _: Inner) -> Any:
    plain = int.__pos__(value)
    return plain if -LONG < plain < LONG else {"int": hex(plain)}


def _sequence(kind: Any) -> tuple[Any, Tell]:
    return kind, lambda value, inner: {kind.__name__: [inner(one) for one in kind.__iter__(value)]}


TOLD: tuple[tuple[Any, Tell], ...] = (
    (int, _integer),
    (float, lambda value, _: float.__pos__(value)),
    (str, lambda value, _: str.__str__(value)),
    (list, lambda value, inner: [inner(one) for one in list.__iter__(value)]),
    (dict, lambda value, inner: {"dict": [[inner(key), inner(one)] for key, one in dict.items(value)]}),
    (range, lambda value, _: {"range": [value.start, value.stop, value.step]}),
    *map(_sequence, (tuple, set, frozenset, collections.deque)),
    (bytes, lambda value, _: {"bytes": bytes.hex(value)}),
    (bytearray, lambda value, _: {"bytearray": bytearray.hex(value)}),
    (complex, lambda value, _: {"complex": complex.__repr__(value)}),
)
"""Encodings of values by their class or a base class."""
IMPORTED = {"Fraction": "fractions", "Decimal": "decimal"}
"""Classes whose values are encoded as text, and their modules; without the module there are no such values."""


def encode_value(value: Any, keep: Keep) -> Any:
    """Encode a value as JSON. Equality in Python is preserved: a list differs from a tuple, and `True` from 1.

    A value of a subclass of a built-in class becomes a value of that class. `keep` encodes all other objects.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Remote):
        return {"object": keep(value)}
    for kind, tell in TOLD:
        if isinstance(value, kind):
            return tell(value, lambda one: encode_value(one, keep))
    for name, module in IMPORTED.items():
        imported: Any = getattr(sys.modules.get(module), name, None)
        if imported is not None and isinstance(value, imported):
            return {name: imported.__str__(value)}
    if isinstance(value, type):
        called = value.__name__
        if getattr(builtins, called, None) is value:
            return {"type": called}
        if issubclass(value, Exception):
            return {"error": [kind.__name__ for kind in value.__mro__]}
    return {"object": keep(value)}


def decode(told: Any, meet: Callable[[Any], Any]) -> Any:
    """Decode a value from JSON; `meet` decodes objects of the other process. Raises `ValueError` if it is invalid."""
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


READ: dict[str, Tell] = {
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
    "Fraction": lambda content, _: __import__("fractions").Fraction(content),
    "Decimal": lambda content, _: __import__("decimal").Decimal(content),
    "type": lambda content, _: _type(content),
    "error": lambda content, _: _error_class(content),
    "object": lambda content, _: content,
}
"""Decoders of values by the name of the encoding."""


def _type(name: str) -> type:
    """Return a built-in type; other built-in objects, such as `exec`, are never passed between the processes."""
    found = getattr(builtins, name)
    if not isinstance(found, type) or name.startswith("_"):
        raise ValueError("not a type")
    return found


ERRORS: dict[str, type[Exception]] = {}
"""Classes for exceptions of the other process, by name."""


def _error_class(names: Sequence[str]) -> type[Exception]:
    """Return a class for an exception of the other process, derived from its built-in base class."""
    base = next(filter(None, map(_built_in_error, names)), Exception)
    return ERRORS.setdefault(names[0], type(names[0], (base,), {}))


def _built_in_error(name: str) -> type[Exception] | None:
    kind = getattr(builtins, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def same_value(left: Any, right: Any) -> bool:
    """Return True if two values are equal in Python, except that truth values are not numbers: `True` is not 1."""
    if isinstance(left, bool) != isinstance(right, bool):
        return not isinstance(left, int | float | complex) and bool(left == right)
    if type(left) is type(right) and isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        keys = {(isinstance(key, bool), key) for key in left} == {(isinstance(key, bool), key) for key in right}
        return keys and all(same_value(left[key], right[key]) for key in left)
    if isinstance(left, set | frozenset) and isinstance(right, set | frozenset):
        return left == right and {x for x in left if isinstance(x, bool)} == {x for x in right if isinstance(x, bool)}
    return bool(left == right)


# ---- calls from one process to the other ----------------------------------------------------------------------------


class Channel:
    """Requests and responses over a socket, one JSON text per line; a process that waits also answers requests."""

    def __init__(self, descriptor: int, answers: dict[str, Callable[..., Any]]) -> None:
        self.incoming, self.outgoing = os.fdopen(descriptor, "rb"), os.fdopen(os.dup(descriptor), "wb")
        self.answers = answers
        self.kept: list[Any] = []

    def keep(self, value: Any) -> Any:
        """Return the number that identifies an object of this process, or of the other one."""
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
        self.outgoing.write(written(content).encode() + b"\n")
        self.outgoing.flush()

    def ask(self, what: str, *arguments: Any, **named: Any) -> Any:
        """Return a response of the other process. Raises its exception if it is built in, else `ProgramError`."""
        self.send(
            {
                "ask": what,
                "with": encode_value(list(arguments), self.keep),
                "named": {name: encode_value(value, self.keep) for name, value in named.items()},
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
        """Answer requests until a response arrives; return `None` if the other process has ended."""
        for line in self.incoming:
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
            after = [encode_value(one, self.keep) for one in arguments]
            changed = [[i, now] for i, (was, now) in enumerate(zip(told["with"], after, strict=True)) if was != now]
            return {"value": encode_value(value, self.keep), "changed": changed}
        except BaseException as error:
            if isinstance(error, ModuleNotFoundError):
                show_error(type(error), error, None)  # for the reason of the verdict
            return {"raised": [kind.__name__ for kind in type(error).__mro__]}


class ProgramError(Exception):
    """The program raised an exception that is not built in."""


class EndedError(ProgramError):
    """The program has ended."""


def _error(names: Sequence[str]) -> Exception:
    """Return the nearest known exception; one that would end the process becomes an ordinary error."""
    cause = ProgramError(", ".join(names[:1]))
    for name in names:
        kind = ERRORS.get(name) or _built_in_error(name)
        if kind is not None and kind is not Exception:
            try:
                error = kind()
            except TypeError:  # it cannot be created without arguments
                break
            error.__cause__ = cause
            return error
    return cause


def _become(held: Any, now: Any) -> None:
    """Update a container to its content after a call in the other process."""
    if isinstance(held, list | bytearray):
        held[:] = now
    elif isinstance(held, dict | set):
        held.clear()
        held.update(now)
    elif isinstance(held, collections.deque):
        held.clear()
        held.extend(now)


class Remote:
    """An object of the other process. It can be called and inspected, and equals only objects of its kind."""

    def __init__(self, channel: Channel, number: int) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_number", number)

    def _ask(self, what: str, *arguments: Any, **named: Any) -> Any:
        return object.__getattribute__(self, "_channel").ask(what, self, *arguments, **named)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        # Not through `_ask`: changed arguments of a call are returned by position.
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


def call_it(function: Any, *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right)


# ---- the program's side ---------------------------------------------------------------------------------------------


def _module(codes: Codes) -> dict[str, Any]:
    """Run a program as a module, not as `__main__`, and return its names."""
    module = type(sys)("program")
    sys.modules["program"] = module
    for code in codes:
        exec(code, module.__dict__)  # noqa: S102 (this is the inside of the box)
    return module.__dict__


def call(given: dict[str, Any], codes: Codes, report: int) -> None:
    """Call one function of the program, or a method of its class `Solution`, and report the value."""
    arguments = decode(given["arguments"], lambda _: None)
    names = _module(codes)
    function = getattr(names["Solution"](), given["name"]) if "Solution" in names else names[given["name"]]
    report_to(report, encode_value(function(*arguments), lambda _: None))


def serve(given: dict[str, Any], codes: Codes, report: int) -> None:
    """Serve the names of the program to the other process until that has ended."""
    os.close(report)
    channel = Channel(given["channel"], {})
    names = _module(codes)
    channel.answers |= {
        "name": lambda name: names[name],
        "has": lambda name: name in names,
        "call": call_it,
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


def report_to(descriptor: int, content: Any) -> None:
    text = written(content).encode() + b"\n"
    while text:
        text = text[write(descriptor, text) :]
