"""Escaping of untrusted text (names, errors, rows, programs) and readable validation messages."""

import codecs
import json
import re
from typing import Any

from pydantic import ValidationError

MISLEADING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff"
"""Characters that change the display order of a line, and two noncharacters."""
HIDDEN = re.compile(rf"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029{MISLEADING}]")
"""Control characters, line separators, misleading characters, and surrogates, which cannot be encoded."""
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
"""Replacements for characters of our own messages that the terminal's encoding lacks."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters that start a formula in a spreadsheet."""


def visible(text: object, keep: str = "") -> str:
    r"""Escape the control characters of `text` (`\x1b`), except those in `keep`, for terminals and reports.

    A terminal would execute them: clear the screen, overwrite text, send keys.
    """
    return HIDDEN.sub(lambda sign: sign[0] if sign[0] in keep else _escape(sign[0]), str(text))


def _escape(sign: str) -> str:
    short = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(sign)
    number = ord(sign)
    return short or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def writable(text: str) -> str:
    """Escape the lone surrogates of `text`, which UTF-8 cannot encode; errors about broken rows may contain them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(content: Any) -> str:
    """Return a JSON document in which control characters are JSON escapes."""
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    return HIDDEN.sub(lambda sign: sign[0] if sign[0] == "\n" else f"\\u{ord(sign[0]):04x}", text)


def csv_cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file; a text that looks like a formula gets the prefix `'`."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def encodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle characters that a terminal's encoding lacks: use `FALLBACK`, and escape the rest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return lost.translate(FALLBACK).encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("peftbench", encodable)


def problem(error: ValidationError) -> str:
    """Return the first error of a configuration, with its location, as readable text."""
    where, why = problems(error)
    return f"{where}: {why}" if where else why


def problems(error: ValidationError) -> tuple[str, str]:
    """Return the location of the first error and the reason; for a union type, the reason covers all alternatives."""
    first, *more = error.errors()
    place = _place(first["loc"])
    same = [first, *(one for one in more if _place(one["loc"]) == place)]
    wanted = list(dict.fromkeys(filter(None, map(_wanted, same))))
    why = f"must be {' or '.join(wanted)}{_given(first)}" if wanted else _why(first)
    return ".".join(map(str, place)), why


def _place(parts: Any) -> list[Any]:
    """Return keys and list indices, without pydantic's names of the alternatives of a union."""
    return [part for part in parts if isinstance(part, int) or (part.isidentifier() and part not in ALTERNATIVES)]


def _given(one: Any) -> str:
    given = one.get("input")
    if given is None or isinstance(given, dict | list | tuple):
        return ""
    return f", not {str(given).lower() if isinstance(given, bool) else repr(given)}"


def _why(one: Any) -> str:
    """Return the reason of an error that is not about the type or range of a value."""
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
"""Names that pydantic inserts into error locations for the alternatives of a union."""


def _wanted(one: Any) -> str | None:
    """Return the expected type or range of a value; `None` if the error is of another kind."""
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
