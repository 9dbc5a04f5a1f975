"""Texts of others (names, errors, rows, programs) made safe to show, and messages in plain words."""

import codecs
import json
import re
from typing import Any

from pydantic import ValidationError

MISLEADING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff"
"""Signs that change the order in which a line is shown, so that it reads as what it is not; and two that are none."""
HIDDEN = re.compile(rf"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029{MISLEADING}]")
"""Characters that move the cursor, end a line, mislead, or cannot be encoded."""
FALLBACK = str.maketrans(
    {
        "–": "-",
        "—": "-",
        "−": "-",
        "·": "|",
        "°": "*",
        "±": "+/-",
        "×": "x",
        "≥": ">",
        "≤": "<",
        "“": '"',
        "”": '"',
        "’": "'",
        "…": ".",
        "β": "b",
        "χ": "chi",
        "²": "^2",
        "é": "e",
        "š": "s",
    }
)
"""What stands for our own characters where the terminal's encoding has none; of one width, so that columns stay."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula."""


def visible(text: object, keep: str = "") -> str:
    r"""`text` with its control characters as escapes (`\x1b`), for terminals and reports; those of `keep` stay.

    A terminal would obey them: clear the screen, write other text over what is there, answer with keys.
    """
    return HIDDEN.sub(lambda sign: sign[0] if sign[0] in keep else _escape(sign[0]), str(text))


def _escape(sign: str) -> str:
    short = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(sign)
    number = ord(sign)
    return short or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def writable(text: str) -> str:
    """`text` as UTF-8 can hold it: lone surrogates, as errors about broken rows may have, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(content: Any) -> str:
    """A JSON document that holds no control character: those in its texts are JSON's own escapes."""
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    return HIDDEN.sub(lambda sign: sign[0] if sign[0] == "\n" else f"\\u{ord(sign[0]):04x}", text)


def csv_cell(value: Any) -> Any:
    """A value as a cell of a CSV file: a text that a spreadsheet would run as a formula is marked as text by `'`."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def encodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """For characters that a terminal's encoding lacks: ours have plain ones in their place, others are escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return lost.translate(FALLBACK).encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("peftbench", encodable)


def problem(error: ValidationError) -> str:
    """The first thing that is wrong in a configuration, and where, in plain words."""
    where, why = problems(error)
    return f"{where}: {why}" if where else why


def problems(error: ValidationError) -> tuple[str, str]:
    """The first place that is wrong, and why; where a value may be one of several things, why it is none of them."""
    first, *more = error.errors()
    place = _place(first["loc"])
    same = [first, *(one for one in more if _place(one["loc"]) == place)]
    wanted = list(dict.fromkeys(filter(None, map(_wanted, same))))
    why = f"must be {' or '.join(wanted)}{_given(first)}" if wanted else _why(first)
    return ".".join(map(str, place)), why


def _place(parts: Any) -> list[Any]:
    """Keys and places in lists, without the names that pydantic has for the alternatives it tried."""
    return [part for part in parts if isinstance(part, int) or (part.isidentifier() and part not in ALTERNATIVES)]


def _given(one: Any) -> str:
    given = one.get("input")
    if given is None or isinstance(given, dict | list | tuple):
        return ""
    return f", not {str(given).lower() if isinstance(given, bool) else repr(given)}"


def _why(one: Any) -> str:
    """An error of pydantic that is none of a wrong value."""
    kind, context = str(one["type"]), one.get("ctx", {})
    if kind in ("missing", "extra_forbidden"):
        return "is missing" if kind == "missing" else "is not known"
    if kind in ("too_short", "too_long"):
        bound, most = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return f"needs {bound} {context[most]} entr{'y' if context[most] == 1 else 'ies'}"
    if kind == "value_error":
        return str(context.get("error", one["msg"])).strip()
    return re.sub(r"^Input should be ", "must be ", one["msg"])


TYPES = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "sequence": "a list",
    "dict": "a table",
    "mapping": "a table",
    "model": "a table",
    "none": "left out",
    "path": "a path",
}
BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}


ALTERNATIVES = {"str", "int", "float", "bool", "none", "list", "dict", "tuple", "set", "any"}
"""Names of types where pydantic tried several, in its places of errors."""


def _wanted(one: Any) -> str | None:
    """What a value had to be; `None` if it is not the value that is wrong."""
    kind, context = str(one["type"]), one.get("ctx", {})
    if kind in BOUNDS:
        key, word = BOUNDS[kind]
        return f"{word} {context[key]:g}"
    if kind in ("literal_error", "enum"):
        *others, last = re.split(", | or ", context["expected"])
        return f"one of {', '.join(others)} or {last}" if others else last
    if kind == "finite_number":
        return "a finite number"
    return TYPES.get(kind.split("_")[0])
