"""Numbers with their units, as people write them on a command line."""

import re

from peftbench.registry import UserError

UNITS: dict[str, dict[str, float]] = {
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12},
    "seconds": {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400},
    "ms": {"ms": 1, "s": 1000},
    "count": {"": 1, "k": 1e3, "M": 1e6, "B": 1e9},
}
"""What may stand behind a number, and what it is worth. Bytes are decimal, as everywhere here."""


def quantity(option: str, given: str | None, kind: str) -> float | None:
    """A number with its unit, as in 24GB or 1.5h. Raises `UserError` for anything else."""
    if given is None:
        return None
    found = re.fullmatch(r"\s*([\d.,_]+)\s*([A-Za-z]*)\s*", given)
    units = {unit.casefold(): worth for unit, worth in UNITS[kind].items()}
    try:
        assert found is not None
        value = float(re.sub("[,_]", "", found[1])) * units[found[2].casefold()]
    except (AssertionError, KeyError, ValueError):
        example = f"24{[*UNITS[kind]][-2]}"
        named = ", ".join(unit or "none" for unit in UNITS[kind])
        raise UserError(f"{option} {given}: a number and one of the units {named}, as in {example}") from None
    if value <= 0:
        raise UserError(f"{option} {given}: a limit is more than 0")
    return value
