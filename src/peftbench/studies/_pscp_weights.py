"""Sets of weights for PSCP: those with a name, in `weights/*.toml`, and the user's own, as a file or a mapping."""

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
"""Counted parameters; TFLOPs over the base's forward pass of 1 x 512 tokens; training's peak in units of 1e9 bytes."""

ALL_COSTS = tuple(WEIGHED)
"""What a set may weigh: `COSTS`, and the median milliseconds of a new token at batch 1, adapter not merged."""

SETS = ("paper", "relative", "exponential")
"""The named sets that a leaderboard has unless others are asked for."""

FORMS = {"power": "(1 + cost / C) ^ -β", "exponential": "exp(-β · cost / C)"}
"""How a cost, over its constant C, lowers a score."""

REFERENCES = {
    "full": "of full fine-tuning of the same model (TFLOPs: of the base's forward pass)",
    "highest": "the highest of the methods compared",
}
"""Where constants that a set does not give come from."""

ABOUT = ("name", "version", "source", "form", "reference")
"""What a set has beside its costs."""


class WeightsError(UserError, ValueError):
    """A set of weights that cannot be used as it is."""


@dataclass(frozen=True)
class WeightSet:
    """Weights of PSCP: `terms` is cost to (constant, exponent), the constant `None` if it is measured.

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
    """The set that is meant.

    In a file or mapping each cost is a table of `constant` and `exponent`, in a mapping also a pair of the two. A file
    needs a `version`; `source`, `form` ("power", "exponential") and, for constants that are measured, `reference`
    ("full", "highest") may be beside it. It is called by its `name`, else as the file is.

    Raises:
        UnknownNameError: there is no set of that name; the message has the nearest.
        WeightsError: the file cannot be read, or something in it is wrong; a `UserError` and a `ValueError`.
    """
    if isinstance(weights, WeightSet):
        return weights
    if isinstance(weights, Mapping):
        return _parsed({"version": 1, **weights}, "weights", "own")
    if isinstance(weights, Path) or weights.endswith(".toml"):
        return _from_file(Path(weights))
    return _named(weights)


def weight_sets(chosen: Iterable[Weights] = ()) -> tuple[WeightSet, ...]:
    """The sets that are meant, in order, each with a name of its own; without any, those of `SETS`.

    Raises `WeightsError` for two sets of one name, and what `weight_set` raises.
    """
    found: dict[str, WeightSet] = {}
    for weights in tuple(chosen) or SETS:
        one = weight_set(weights)
        if found.setdefault(one.name, one) != one or (one.name in weight_set_names() and one != _named(one.name)):
            raise WeightsError(f"two weight sets are called '{one.name}': give one of them another name")
    return tuple(found.values())


def weight_set_names() -> list[str]:
    """The named sets."""
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
    """The set of some content, each part checked; `where` begins the message of an error."""
    for key in content:
        if key not in (*ABOUT, *ALL_COSTS):
            raise WeightsError(f"{where}: {did_you_mean('key', str(key), [*ALL_COSTS, *ABOUT])}")
    terms = {cost: _term(content[cost], cost, where) for cost in ALL_COSTS if cost in content}
    if not terms:
        raise WeightsError(f"{where}: no cost is weighed: give one or more of {', '.join(ALL_COSTS)}")
    version, source, name = content.get("version"), content.get("source", "own"), content.get("name", name)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise WeightsError(f"{where}: give it a version, a whole number from 1, as in version = 1")
    if not (isinstance(name, str) and name.strip() and isinstance(source, str)):
        raise WeightsError(f"{where}: name and source are texts, and the name is not empty")
    form, reference = content.get("form", "power"), content.get("reference")
    _check_choice("form", form, FORMS, where)
    found = WeightSet(name, version, source, terms, form, reference)
    _check_reference(found, where)
    return found


def _check_reference(found: WeightSet, where: str) -> None:
    """There is one if a constant is measured, and only then."""
    if found.reference is not None:
        _check_choice("reference", found.reference, REFERENCES, where)
        if not found.measured:
            raise WeightsError(f"{where}: a reference is for costs without a constant, and all have one")
    elif found.measured:
        choices = " or ".join(f'reference = "{choice}"' for choice in REFERENCES)
        raise WeightsError(f"{where}: {', '.join(found.measured)} without a constant: give one, or {choices}")


def _check_choice(key: str, given: object, known: Mapping[str, str], where: str) -> None:
    if not isinstance(given, str) or given not in known:
        raise WeightsError(f"{where}: {did_you_mean(key, str(given), list(known))}")


def _term(given: object, cost: str, where: str) -> tuple[float | None, float]:
    """Constant and exponent of a cost, each checked."""
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
        raise WeightsError(f"{where}: {cost} has no exponent")
    if not _is_number(exponent) or not 0 <= exponent < math.inf:
        raise WeightsError(f"{where}: the exponent of {cost} is {exponent!r}: it must be a number of 0 or more")
    if constant is not None and not (_is_number(constant) and 0 < constant < math.inf):
        raise WeightsError(f"{where}: the constant of {cost} is {constant!r}: it must be a positive number")
    return (None if constant is None else float(constant)), float(exponent)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)
