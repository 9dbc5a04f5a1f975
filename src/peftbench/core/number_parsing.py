"""Numbers with their units, as people write them on a command line."""

import math
import re

from peftbench.core.registry import UserError

UNITS: dict[str, dict[str, float]] = {
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12},
    "seconds": {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400},
    "ms": {"ms": 1, "s": 1000},
    "count": {"": 1, "k": 1e3, "M": 1e6, "B": 1e9},
}
"""Units that may follow a number, and their factors. Bytes are decimal, as in the whole package."""
EXAMPLES = {"bytes": "24GB", "seconds": "1.5h", "ms": "30ms", "count": "10M"}


def seconds(given: str | None, option: str = "--timeout") -> float | None:
    """Return the seconds of a time such as 90, 10m or 1.5h; `option` names it in errors. Raises `UserError`."""
    return quantity(option, f"{given}s" if given and given.isdigit() else given, "seconds")


def quantity(option: str, given: str | None, kind: str) -> float | None:
    """A number with its unit, as in 24GB or 1.5h. Raises `UserError` for anything else.

    A comma is refused because it is ambiguous: 1,5 is one and a half to some, 1,500 is fifteen hundred to others.
    """
    if given is None:
        return None
    if "," in given:
        raise UserError(f"{option} {given}: use a decimal point and no separators, as in {EXAMPLES[kind]} or 1500")
    found = re.fullmatch(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", given)
    units = {unit.casefold(): worth for unit, worth in UNITS[kind].items()}
    if found is None or found[2].casefold() not in units:
        named = ", ".join(unit or "none" for unit in UNITS[kind])
        raise UserError(f"{option} {given}: give a number and one of the units {named}, as in {EXAMPLES[kind]}")
    value = float(found[1]) * units[found[2].casefold()]
    if not 0 < value < math.inf:
        raise UserError(f"{option} {given}: the limit must be a finite number above 0")
    return value
