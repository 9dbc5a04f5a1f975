"""Convert table cells to text, numbers and class labels."""

import datetime as dt
import math
import re
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
PLAIN = (int, str, dt.date, dt.time, dt.timedelta, uuid.UUID)
"""Types converted with `str`; `dt.datetime` is a subclass of `dt.date`."""
MARKS = dict.fromkeys(map(ord, ".,;:!?'\"()[]{}`´‘’‚‛“”„‟«»‹›…¡¿、。「」『』·\u2013\u2014"), " ")
"""Punctuation that text comparison ignores. Arithmetic signs and hyphens are compared."""


def text(row: Mapping[str, Any], column: str, encoding: str = "") -> str:
    """Return a cell as stripped text; null and NaN are empty text. `encoding` decodes bytes that are not UTF-8.

    Raises `ValueError` for a missing column, a value without a text form (list, table, infinite number), a lone
    surrogate or a NUL character.
    """
    if column not in row:
        raise ValueError(f"it has no '{column}'")
    try:
        found = _text(row[column], encoding)
        check_text(found)
    except ValueError as error:
        raise ValueError(f"'{column}' holds {error}") from None
    return found.strip()


def _text(value: Any, encoding: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return _decoded(value, encoding)
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise ValueError(f"{value}, which is no finite number")
        return str(value) if isinstance(value, float) else f"{value:f}"
    if isinstance(value, PLAIN):
        return str(value)
    names: dict[type, str] = {list: "list", tuple: "list", dict: "table"}
    kind = names.get(type(value), type(value).__name__)
    raise ValueError(f"a {kind}, not text")


def _decoded(value: bytes, encoding: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            return value.decode(encoding)
        raise ValueError(
            f'bytes that are not UTF-8 ({value[error.start]:#04x} at {error.start}): give encoding = "NAME"'
        ) from None


def check_text(text: str) -> None:
    """Raise `ValueError` for a lone surrogate or a NUL character. The message follows the word “holds”."""
    if text.isascii() and "\0" not in text:
        return
    for place, sign in enumerate(text):
        if "\ud800" <= sign <= "\udfff":
            raise ValueError(f"half of a character (lone surrogate U+{ord(sign):04X}) at {place}: mend the text")
        if sign == "\0":
            raise ValueError(f"a NUL character at {place}: mend the text, or give its encoding if it is UTF-16")


def exact_number(text: str) -> Decimal | None:
    """Return the exact value of a numeric text, else `None`."""
    return Decimal(text) if NUMBER.fullmatch(text) else None


def label_of(found: str, labels: Sequence[str], column: str) -> str:
    """Return the label that a cell of a column stands for. Raises `ValueError` if there is none.

    A cell matches a label by name, then by numeric value if labels are numbers, then by index from 0, then by name
    ignoring case. The index is used only if no label is a number: with labels 1 to 5, a 0 is an error, not label 1.
    """
    if found in labels:
        return found
    value = exact_number(found)
    if value is not None:
        numbers = {exact_number(label): label for label in labels}
        if numbers.keys() == {None}:
            numbers = {Decimal(place): label for place, label in enumerate(labels)}
        if value in numbers:
            return numbers[value]
    for label in labels:
        if label.casefold() == found.casefold():
            return label
    raise ValueError(f"'{found}' in {column} is not one of the labels {', '.join(labels)}")


def same_numbers(labels: Sequence[str]) -> tuple[str, str] | None:
    """Return two labels with the same numeric value, such as 1 and 1.0, or `None`."""
    seen: dict[Decimal, str] = {}
    for label in labels:
        value = exact_number(label)
        if value is not None and seen.setdefault(value, label) != label:
            return seen[value], label
    return None


def normalised(text: str) -> str:
    """Return the NFKC form without case, punctuation and extra whitespace; unchanged if nothing else is left."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(plain.casefold().translate(MARKS).split()) or text
