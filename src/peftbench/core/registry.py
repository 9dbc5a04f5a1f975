"""Registry of units by name. A unit is one decorated function in one file; adding one changes no other file."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import to_jsonable_python

from peftbench.core.text_escaping import problems

Facts = TypeVar("Facts")

PLUGIN = "peftbench_plugin_"
"""Prefix of the module names of plugin files."""
SCRIPT = "__main__"
"""Name of the module of a script or a notebook."""


MANY = 4
"""Maximum number of suggested names."""


class UserError(Exception):
    """An error that the user can correct; the message is one line that says what to do."""


class RefusedError(UserError):
    """A method, a model and a task that cannot be combined. The run gets the status `refused`, not `failed`."""


class UnknownNameError(UserError):
    """A name that is not registered; the message suggests the nearest ones."""


def error_line(problem: BaseException) -> str:
    """Return the type of an error and its message, at most 300 characters."""
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"


def did_you_mean(kind: str, name: str, known: list[str]) -> UnknownNameError:
    """Return the error for an unknown name, which suggests names that contain it, else the nearest, else all."""
    longer = sorted({one for one in known if len(name) > 2 and name.casefold() in one.casefold()})
    near = longer if 0 < len(longer) <= MANY else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(sorted({*known})) or 'none'}"
    )
    return UnknownNameError(f"unknown {kind} '{name}': {hint}")


@dataclass(frozen=True)
class Unit(Generic[Facts]):
    """A registered function: its name, its facts, and its keyword-only arguments as configuration.

    `verify(arguments)` raises `UserError` for an invalid combination of arguments that are each valid.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    facts: Facts
    verify: Callable[[dict[str, Any]], None] | None = None

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The arguments that a grid may set, by name. Raises `UserError` if one is not keyword-only or has no type."""
        try:
            parameters = inspect.signature(self.function, eval_str=True).parameters
        except NameError as error:
            raise UserError(f"{self.kind} '{self.name}', annotations cannot be resolved: {error}") from None
        for one in list(parameters.values())[1:]:
            if one.kind is one.POSITIONAL_OR_KEYWORD:
                raise UserError(
                    f"{self.kind} '{self.name}': put * before its argument '{one.name}' to make it keyword-only"
                )
            if one.kind is one.KEYWORD_ONLY and one.annotation is one.empty:
                raise UserError(f"{self.kind} '{self.name}': its argument '{one.name}' needs a type, as in n: int = 4")
        return {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def schema(self) -> type[BaseModel]:
        """A pydantic model of the arguments."""
        fields: dict[str, Any] = {
            n: (p.annotation, ... if p.default is p.empty else p.default) for n, p in self.parameters.items()
        }
        return create_model(self.name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)

    def check(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check `arguments` against the signature; return them in JSON form, without those equal to their defaults.

        Raises `UserError` for an unknown name, with the nearest known one, or for an invalid value.
        """
        for name in arguments:
            if name not in self.parameters:
                raise did_you_mean(f"argument of {self.kind} '{self.name}'", name, list(self.parameters))
        try:
            checked = self.schema(**arguments)
        except ValidationError as error:
            where, why = problems(error)
            raise UserError(f"{self.kind} '{self.name}', argument '{where}': {why}") from None
        # In JSON form, the list of a grid file and the tuple of a default are equal.
        defaults = to_jsonable_python({n: p.default for n, p in self.parameters.items() if p.default is not p.empty})
        given = checked.model_dump(mode="json")
        changed = {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}
        if self.verify is not None:
            self.verify(changed)
        return changed


@dataclass(frozen=True)
class Family(Generic[Facts]):
    """Units that are created on request, as `NAME:MEMBER`.

    `key` is the argument of a grid entry that names members, `names` lists all members, `make` creates one and raises
    `UserError` for an unknown name.
    """

    name: str
    key: str
    names: Callable[[], list[str]]
    make: Callable[[str], Unit[Facts]]


class Registry(Generic[Facts]):
    """Units of one kind: the modules of `package`, the entry points of group `package`, and plugin files.

    Modules are imported when the registry is first read.
    """

    def __init__(self, kind: str, package: str, separator: str = "_") -> None:
        self.kind, self.package, self.separator = kind, package, separator
        self._units: dict[str, Unit[Facts]] = {}
        self._families: dict[str, Family[Facts]] = {}
        self._loaded = False

    def add(self, function: Callable[..., Any], facts: Facts) -> None:
        """Register a function under its own name (words joined by `separator`).

        Raises `UserError` if a function of another module has the same name. A function of a script or a notebook may
        be redefined: a digest of its code is part of its version.
        """
        name = function.__name__.strip("_").replace("_", self.separator)
        known = self._units.get(name)
        if known and known.function.__module__ != function.__module__:
            raise UserError(
                f"two {self.kind}s are called '{name}': in {known.function.__module__} and {function.__module__}"
            )
        self._units[name] = Unit(self.kind, name, function, facts)

    def put(self, unit: Unit[Facts]) -> None:
        """Register a unit that was created by another process."""
        self._load()
        self._units[unit.name] = unit

    def own(self, name: str) -> Unit[Facts] | None:
        """Return the registered unit of that name, `None` for a member of a family or an unknown name."""
        self._load()
        return _versioned(self._units[name]) if name in self._units else None

    def add_family(self, family: Family[Facts]) -> None:
        """Register a family of units."""
        self._families[family.name] = family

    def pick(self, name: str, given: Mapping[str, Any]) -> tuple[list[Unit[Facts]], dict[str, Any]]:
        """Return the units that a grid entry selects, and its arguments without the one that names family members.

        A list selects several members, `all` selects every member. With `all`, an invalid combination of arguments is
        reported by the run, not here. Raises `UserError` if an entry of a family names no members.
        """
        self._load()
        family, rest = self._families.get(name), dict(given)
        if family is None:
            return [self[name]], rest
        selected = rest.pop(family.key, None)
        if selected == "all":
            return [replace(self[f"{name}:{member}"], verify=None) for member in family.names()], rest
        members = selected if isinstance(selected, list) else [selected]
        if not members or not all(isinstance(member, str) for member in members):
            raise self._needs(family)
        return [self[f"{name}:{member}"] for member in members], rest

    def _needs(self, family: Family[Facts]) -> UserError:
        known = ", ".join(family.names())
        return UserError(f"{self.kind} '{family.name}' needs {family.key}: \"all\", or one or more of {known}")

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(package.__path__, f"{self.package}."):
            importlib.import_module(module.name)
        for point in entry_points(group=self.package):
            try:
                point.load()
            except Exception as error:
                where = f"{point.dist.name if point.dist else '?'}: entry point '{point.name}' of {self.package}"
                raise UserError(f"package {where}: {type(error).__name__}: {error}") from error

    def __getitem__(self, name: str) -> Unit[Facts]:
        self._load()
        family, _, member = name.partition(":")
        if family in self._families:
            if not member:
                raise self._needs(self._families[family])
            return self._families[family].make(member)
        if name not in self._units:
            raise did_you_mean(self.kind, name, [*self._units, *self._families])
        return _versioned(self._units[name])

    @property
    def families(self) -> list[str]:
        """The names of families."""
        self._load()
        return list(self._families)

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._units or name in self._families

    def __iter__(self) -> Iterator[Unit[Facts]]:
        """Iterate over the units by name, without the members of families."""
        self._load()
        return iter(sorted(self._units.values(), key=lambda unit: unit.name))


def _versioned(unit: Unit[Facts]) -> Unit[Facts]:
    """Return a unit; if it is from a script, with a digest of its code appended to its version.

    The digest is computed at each request, because a script may define a function's dependencies after it.
    """
    facts: Any = unit.facts
    if unit.function.__module__ != SCRIPT or not hasattr(facts, "version"):
        return unit
    return replace(unit, facts=replace(facts, version=f"{facts.version}-{code_digest(unit.function, facts)}"))


def code_digest(function: Callable[..., Any], facts: object) -> str:
    """Return twelve hexadecimal digits of a script's unit: its facts, its code, and the code it uses in the script."""
    digest, seen = hashlib.sha256(), set[int]()
    todo: list[Any] = [function, facts]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        held: dict[str, Any] = {}
        if inspect.isclass(one) or is_dataclass(one):
            held = {name: each for name, each in vars(one).items() if not name.startswith("__") or name == "__init__"}
        elif inspect.isfunction(one := inspect.unwrap(getattr(one, "__func__", one))):
            names = _code(one.__code__, digest)
            held = {name: one.__globals__[name] for name in names if name in one.__globals__}
            held |= {**inspect.getclosurevars(one).nonlocals, "": (one.__defaults__, one.__kwdefaults__)}
        for name, each in sorted(held.items()):
            if inspect.isfunction(each) or inspect.isclass(each) or is_dataclass(each):
                todo += [each] if getattr(each, "__module__", SCRIPT) == SCRIPT or one is facts else []
            else:
                digest.update(f"{name}={_plain(each)};".encode())
    return digest.hexdigest()[:12]


def _plain(value: Any) -> str:
    """Return a text for a value that is the same in every process; for other types, the name of the type."""
    if isinstance(value, str | int | float | bool | bytes | types.NoneType):
        return repr(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_plain(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_plain, value)))}}}"
    return type(value).__name__


def _code(code: types.CodeType, digest: Any) -> list[str]:
    """Return the global names that code uses, and add the code, without its location, to the digest."""
    digest.update(code.co_code)
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _code(constant, digest)
        else:
            digest.update(_plain(constant).encode())
    return names


def load_plugin(path: Path) -> None:
    """Import a file of units (`--plugin FILE.py`). Raises `UserError` if it cannot be imported."""
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"{PLUGIN}{path.stem}_{place}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"plugin {path}: {type(error).__name__}: {error}") from error
