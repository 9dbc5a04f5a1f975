"""What a search may set, and to which values: `[tune]` of a grid, and ranges in its entries of methods."""

import math
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError, model_validator

from peftbench.core.registry import UserError, did_you_mean
from peftbench.core.spec import Noun

KEYS = ("low", "high", "log", "among")
BELOW, ABOVE = 10, 100
"""The default range of a learning rate, around a method's own: those are of large models, and small ones want more."""
DIGITS = 4
INCOMPARABLE = dict.fromkeys(("validation_rows", "max_length"), "it changes on which text the validation loss is")
"""Settings whose values cannot be compared by validation loss, and why."""

SHARE_OR_STEPS = ("warmup_steps", "eval_steps")
"""Settings that are a share of all steps under 1, and a number of steps from 1 on."""


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
    """`[tune]` of a grid: the trials of each search, the seeds of each, whether those that lag behind are stopped.

    `learning_rate`: of all methods that do not say their own; without it, around each method's default.
    """

    trials: PositiveInt
    seeds: tuple[NonNegativeInt, ...] = Field((1000,), min_length=1)
    prune: bool = True
    learning_rate: Rates | None = None

    @model_validator(mode="after")
    def _apart(self) -> "Tune":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: one of them stands twice: {self.seeds}")
        return self


class Range(Noun):
    """The values that a search may give to an argument of a method, or to a training setting.

    They lie between `low` and `high` (by their logarithms with `log`, whole numbers with `whole`), or are `among` some.
    `first` is what the first trial takes.
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
        """The values that have to be right for all to be."""
        return self.among or (self.low, self.high)

    @property
    def middle(self) -> Any:
        """A value in the middle: by the logarithm, where that is the scale."""
        if self.among:
            return self.among[len(self.among) // 2]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return round(middle) if whole else self.rounded(middle)

    def rounded(self, value: float) -> float:
        """A number of few digits, so that names stay readable; still within the range."""
        return float(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    def fitted(self, annotation: Any, default: Any) -> "Range":
        """The range of an argument of this type: whole numbers if it takes no others; `default` is tried first."""
        whole = all(isinstance(end, int) for end in (self.low, self.high)) and not _takes(annotation, self.low + 0.5)
        numbers = {} if self.among or whole else {"low": float(self.low), "high": float(self.high)}
        fitted = self.model_copy(update=numbers | {"whole": whole and not self.among})
        return fitted.model_copy(update={"first": default if fitted.holds(default) else fitted.middle})

    def holds(self, value: Any) -> bool:
        """Whether the value is one of the range."""
        if self.among:
            return value in self.among
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


Space = tuple[Range, ...]
"""All that one search may set."""


def is_range(value: Any) -> bool:
    """Whether a value of a grid stands for many, of which a search chooses."""
    return isinstance(value, dict) and bool({"low", "high", "among"} & value.keys())


def ranged(name: str, value: dict[str, Any], where: str) -> Range:
    """The range that a table of a grid means. Raises `UserError` for one that is none."""
    for key in value:
        if key not in KEYS:
            raise UserError(f"{where}, range of {name}: {did_you_mean('key', key, list(KEYS))}")
    if "among" in value:
        values = value["among"]
        if len(value) > 1 or not isinstance(values, list) or len({repr(one) for one in values}) < 2:
            raise UserError(f"{where}, range of {name}: among = [...] stands alone, with two values or more")
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
    """The range of the learning rate of a method with this default."""
    asked = tune.learning_rate
    assert own is not None, "only methods that train are tuned"
    ends = (
        (asked.low, asked.high) if asked else (float(f"{own / BELOW:.{DIGITS}g}"), float(f"{own * ABOVE:.{DIGITS}g}"))
    )
    return Range(name="learning_rate", low=ends[0], high=ends[1], log=True).fitted(float, own)


def _takes(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True
