"""Findings as plain JSON values."""

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def to_json(value: object) -> Any:
    """Mappings and sequences of JSON values, with `None` for what JSON has no number for; dataclasses are mappings."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
