"""Search spaces: `[tune]` of a grid, and ranges in its method entries."""

import math
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError, model_validator

from peftbench.core.registry import UserError, did_you_mean
from peftbench.core.spec import Noun

KEYS = ("low", "high", "log", "among")
BELOW, ABOVE = 10, 100
"""The default learning-rate range is the method's default divided by `BELOW` to times `ABOVE`.

It is asymmetric because defaults are chosen for large models, and small models need larger rates.
"""
DIGITS = 4
INCOMPARABLE = dict.fromkeys(
    ("validation_rows", "max_length"), "it changes the text on which the validation loss is computed"
)
"""Settings whose values cannot be compared by validation loss, with the reason."""

SHARE_OR_STEPS = ("warmup_steps", "eval_steps")
"""Settings that are a share of all steps if below 1, else a number of steps."""


class Rates(Noun):
    """Learning rates from `low` to `high`."""

    low: PositiveFloat
    high: PositiveFloat

    @model_validator(mode="after")
    def _ordered(self) -> "Rates":
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        return self


class Tune(Noun):
    """`[tune]` of a grid: trials per search, seeds, and whether weak trials are stopped early (`prune`).

    `learning_rate` is the range for methods that set none; if it is missing, the range is around the method's default.
    """

    trials: PositiveInt
    seeds: tuple[NonNegativeInt, ...] = Field((1000,), min_length=1)
    prune: bool = True
    learning_rate: Rates | None = None

    @model_validator(mode="after")
    def _apart(self) -> "Tune":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds contains a duplicate: {self.seeds}")
        return self


class Range(Noun):
    """The values of an argument of a method, or of a training setting, in a search.

    Either numbers from `low` to `high` (on a logarithmic scale with `log`, integers with `whole`), or the listed values
    `among`. The first trial uses `first`.
    """

    name: str
    low: int | float = 0
    high: int | float = 0
    log: bool = False
    whole: bool = False
    among: tuple[Any, ...] = ()
    first: Any = None

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values to validate: if they are valid, all values of the range are."""
        return self.among or (self.low, self.high)

    @property
    def middle(self) -> Any:
        """The middle value, on the scale of the range."""
        if self.among:
            return self.among[len(self.among) // 2]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return round(middle) if whole else self.rounded(middle)

    def rounded(self, value: float) -> float:
        """Round to `DIGITS` significant digits, so that names stay readable, and clip to the range."""
        return float(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    def fitted(self, annotation: Any, default: Any) -> "Range":
        """Return the range adapted to an argument's type: `whole` if it accepts only integers, `first` its default."""
        whole = all(isinstance(end, int) for end in (self.low, self.high)) and not _takes(annotation, self.low + 0.5)
        numbers = {} if self.among or whole else {"low": float(self.low), "high": float(self.high)}
        fitted = self.model_copy(update=numbers | {"whole": whole and not self.among})
        return fitted.model_copy(update={"first": default if fitted.holds(default) else fitted.middle})

    def holds(self, value: Any) -> bool:
        """Return True if the value is in the range."""
        if self.among:
            return value in self.among
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


Space = tuple[Range, ...]
"""All ranges of one search."""


def is_range(value: Any) -> bool:
    """Return True if a value of a grid is a range."""
    return isinstance(value, dict) and bool({"low", "high", "among"} & value.keys())


def ranged(name: str, value: dict[str, Any], where: str) -> Range:
    """Parse a table of a grid as a range. Raises `UserError` if it is invalid."""
    for key in value:
        if key not in KEYS:
            raise UserError(f"{where}, range of {name}: {did_you_mean('key', key, list(KEYS))}")
    if "among" in value:
        values = value["among"]
        if len(value) > 1 or not isinstance(values, list) or len({repr(one) for one in values}) < 2:
            raise UserError(
                f"{where}, range of {name}: among = [...] needs two or more different values, and no other key"
            )
        return Range(name=name, among=tuple(values))
    low, high = ends = value.get("low", math.nan), value.get("high", math.nan)
    for end in ends:
        if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
            raise UserError(f"{where}, range of {name}: it needs two numbers, low and high, or among = [...]")
    log = bool(value.get("log", False)) or name == "learning_rate"
    if low >= high or (log and low <= 0):
        why = f"low = {low} is not below high = {high}" if low >= high else f"low = {low} has no logarithm"
        raise UserError(f"{where}, range of {name}: {why}")
    return Range(name=name, low=low, high=high, log=log)


def rates(tune: Tune, own: float | None) -> Range:
    """Return the learning-rate range for a method whose default rate is `own`."""
    given = tune.learning_rate
    assert own is not None, "only methods that train are tuned"
    ends = (
        (given.low, given.high) if given else (float(f"{own / BELOW:.{DIGITS}g}"), float(f"{own * ABOVE:.{DIGITS}g}"))
    )
    return Range(name="learning_rate", low=ends[0], high=ends[1], log=True).fitted(float, own)


def _takes(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True
