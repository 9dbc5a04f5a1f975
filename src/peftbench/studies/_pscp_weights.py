"""Weight sets of PSCP: named ones in `pscp_weight_sets/*.toml`, and the user's own as a file or a mapping."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from numbers import Real
from pathlib import Path
from typing import Any, TypeGuard

from peftbench.core.costs import WEIGHED
from peftbench.core.registry import UserError, did_you_mean

COSTS = ("trainable_parameters", "extra_forward_tflops", "peak_memory_gb")
"""Trainable parameters; TFLOPs beyond the base's forward pass of 1 x 512 tokens; peak training memory in 1e9 bytes."""

ALL_COSTS = tuple(WEIGHED)
"""Costs that a set may weigh: `COSTS`, and the median milliseconds per new token at batch 1, adapter not merged."""

SETS = ("paper", "relative", "exponential")
"""The named sets that a leaderboard uses by default."""

FORMS = {"power": "(1 + cost / C) ^ -β", "exponential": "exp(-β · cost / C)"}
"""Penalty factor of a cost with constant C, by form."""

REFERENCES = {
    "full": "of full fine-tuning of the same model (TFLOPs: of the base's forward pass)",
    "highest": "the highest of the methods compared",
}
"""Source of constants that a set does not give."""

ABOUT = ("name", "version", "source", "form", "reference")
"""Keys of a set other than its costs."""


class WeightsError(UserError, ValueError):
    """A weight set that is invalid or cannot be read."""


@dataclass(frozen=True)
class WeightSet:
    """Weights of PSCP: `terms` maps a cost to (constant, exponent); the constant is `None` if it is measured.

    `form` is one of `FORMS`, `reference` one of `REFERENCES`, or `None` if no constant is measured.
    """

    name: str
    version: int
    source: str
    terms: Mapping[str, tuple[float | None, float]]
    form: str = "power"
    reference: str | None = None

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    @property
    def measured(self) -> tuple[str, ...]:
        """The costs whose constants the set does not give."""
        return tuple(cost for cost, (constant, _) in self.terms.items() if constant is None)


Weights = str | Path | Mapping[str, Any] | WeightSet
"""A named set, a TOML file (a path, or a text that ends in `.toml`), or the content of one as a mapping."""


def weight_set(weights: Weights) -> WeightSet:
    """Return the weight set for a name, a file, a mapping or a weight set.

    In a file or mapping each cost is a table of `constant` and `exponent`; a mapping may also give a pair of the two. A
    file needs a `version`. Optional keys are `source`, `form` ("power", "exponential") and, for constants that are
    measured, `reference` ("full", "highest"). The set's name is `name`, by default the name of the file.

    Raises:
        UnknownNameError: no set has this name; the message suggests the nearest one.
        WeightsError: the file cannot be read or its content is invalid; a `UserError` and a `ValueError`.
    """
    if isinstance(weights, WeightSet):
        return weights
    if isinstance(weights, Mapping):
        return _parsed({"version": 1, **weights}, "weights", "own")
    if isinstance(weights, Path) or weights.endswith(".toml"):
        return _from_file(Path(weights))
    return _named(weights)


def weight_sets(chosen: Iterable[Weights] = ()) -> tuple[WeightSet, ...]:
    """Return the chosen sets in order, by default those of `SETS`; their names must differ.

    Raises `WeightsError` for two sets with the same name, and the errors of `weight_set`.
    """
    found: dict[str, WeightSet] = {}
    for weights in tuple(chosen) or SETS:
        one = weight_set(weights)
        if found.setdefault(one.name, one) != one or (one.name in weight_set_names() and one != _named(one.name)):
            raise WeightsError(f"two weight sets are called '{one.name}': give one of them another name")
    return tuple(found.values())


def weight_set_names() -> list[str]:
    """Return the names of the bundled sets."""
    return [*SETS, *sorted({file.removesuffix(".toml") for file in _bundled()} - set(SETS))]


def _bundled() -> dict[str, str]:
    return {f.name: f.read_text("utf-8") for f in files("peftbench.studies").joinpath("pscp_weight_sets").iterdir()}


@cache
def _named(name: str) -> WeightSet:
    if name not in weight_set_names():
        raise did_you_mean("weight set", name, weight_set_names())
    return _parsed(tomllib.loads(_bundled()[f"{name}.toml"]), f"weight set '{name}'", name)


def _from_file(path: Path) -> WeightSet:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(
            f"weights {path}: {error.strerror or error}; named sets: {', '.join(weight_set_names())}"
        ) from None
    except ValueError as error:  # not TOML, or not even UTF-8
        raise WeightsError(f"weights {path}: not a TOML file: {error}") from None
    return _parsed(content, f"weights {path}", path.stem)


def _parsed(content: Mapping[str, Any], where: str, name: str) -> WeightSet:
    """Return the set of some content after validation; error messages begin with `where`."""
    for key in content:
        if key not in (*ABOUT, *ALL_COSTS):
            raise WeightsError(f"{where}: {did_you_mean('key', str(key), [*ALL_COSTS, *ABOUT])}")
    terms = {cost: _term(content[cost], cost, where) for cost in ALL_COSTS if cost in content}
    if not terms:
        raise WeightsError(f"{where}: no cost is given: give one or more of {', '.join(ALL_COSTS)}")
    version, source, name = content.get("version"), content.get("source", "own"), content.get("name", name)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise WeightsError(f"{where}: version is missing or invalid: give a positive integer, such as version = 1")
    if not (isinstance(name, str) and name.strip() and isinstance(source, str)):
        raise WeightsError(f"{where}: name and source must be strings, and name must not be empty")
    form, reference = content.get("form", "power"), content.get("reference")
    _check_choice("form", form, FORMS, where)
    found = WeightSet(name, version, source, terms, form, reference)
    _check_reference(found, where)
    return found


def _check_reference(found: WeightSet, where: str) -> None:
    """Check that a reference is given if and only if a constant is measured."""
    if found.reference is not None:
        _check_choice("reference", found.reference, REFERENCES, where)
        if not found.measured:
            raise WeightsError(f"{where}: all costs have a constant: remove reference")
    elif found.measured:
        choices = " or ".join(f'reference = "{choice}"' for choice in REFERENCES)
        raise WeightsError(f"{where}: no constant for {', '.join(found.measured)}: give one, or {choices}")


def _check_choice(key: str, given: object, known: Mapping[str, str], where: str) -> None:
    if not isinstance(given, str) or given not in known:
        raise WeightsError(f"{where}: {did_you_mean(key, str(given), list(known))}")


def _term(given: object, cost: str, where: str) -> tuple[float | None, float]:
    """Return the constant and exponent of a cost after validation."""
    if isinstance(given, Mapping):
        for key in given:
            if key not in ("constant", "exponent"):
                raise WeightsError(f"{where}: {did_you_mean(f'key of {cost}', str(key), ['constant', 'exponent'])}")
        constant, exponent = given.get("constant"), given.get("exponent")
    elif isinstance(given, list | tuple) and len(given) == 2:
        constant, exponent = given
    else:
        raise WeightsError(f"{where}: {cost} must have a constant and an exponent, not {given!r}")
    if exponent is None:
        raise WeightsError(f"{where}: {cost} has no exponent: give one")
    if not _is_number(exponent) or not 0 <= exponent < math.inf:
        raise WeightsError(f"{where}: the exponent of {cost} is {exponent!r}: it must be a number of 0 or more")
    if constant is not None and not (_is_number(constant) and 0 < constant < math.inf):
        raise WeightsError(f"{where}: the constant of {cost} is {constant!r}: it must be a positive number")
    return (None if constant is None else float(constant)), float(exponent)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)
