r"""Parse numbers in texts, and the final number, the metric of GSM8K.

The final number is the one directly after the first `####`, as in the GSM8K authors' regular expression. Without one it
is the last number in the last `\boxed{}`, or else the last number of the text.

Accepted notations:

- a currency sign before the number, a per cent sign after it (`5%` is 5), digits of any script, including full width;
- groups of three digits separated by commas, spaces of any width, apostrophes, `_` or `{,}`; separated by points only
  if that is unambiguous (`1.000.000`, `1.000,50`): `1.000` is 1, and `12,5` are two numbers;
- fractions (`3/4`, `1 1/2`, `5 ½`, `\frac{3}{4}`, `\frac12`), powers (`10^3`, `2^{10}`, `10³`) and powers of ten
  (`1.5e3`, `1.5 \times 10^{3}`); the exponent of a letter, as in `18 cm^2`, is not a number;
- a hyphen, minus or en dash is a sign unless it follows a letter, digit, unit or bracket: `COVID-19`, `10–18`,
  `10%-20%`. Blanks may follow the sign after `####`, `=` or `{`, and at the start of the text unless it is a hyphen,
  which may be a list marker.
"""

import re
import unicodedata
from fractions import Fraction

LONGEST = 1000
"""Maximum number of characters of a number."""
BITS = 4 * LONGEST
"""Maximum bits of the numerator or denominator of a power."""
GAPS = " \u00a0\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_FORMS = rf"""
    (?P<fraction> (?<![\d/.,^]) (?:\d+[{GAPS}])? \d+ [ ]?/[ ]? [1-9]\d* (?![\d/^]|[.,]\d) )
  | (?P<points> \d{{1,3}} (?: (?:\.\d{{3}})+ ,\d+ | (?:\.\d{{3}}){{2,}} ) (?![\d]|[.,]\d) )
  | (?P<gaps> \d{{1,3}} (?P<gap>[{GAPS}'’_]) \d{{3}} (?:(?P=gap)\d{{3}})* (?!\d) (?:[.,]\d+)? )
  | (?P<commas> (?: \d{{1,3}} (?:,\d{{3}})+ | \d{{1,2}} (?:,\d\d)+ ,\d{{3}} ) (?!\d) (?:\.\d+)? )
  | (?P<plain> \d+ (?:\.\d+)? | (?<![\d.])\.\d+ )
"""
_NUMBER = re.compile(
    rf"""
    (?P<sign> (?<![A-Za-zÀ-ɏ\d_)\]%°])(?<!\d[$€£¥])- )? (?: (?<!\d)[$€£¥](?P<inner>-)? )? (?: {_FORMS} )
    (?: \^(?: \{{(?P<braced>-?\d{{1,3}})\}} | (?P<power>-?\d{{1,3}})(?!\d|\.\d) ) )?
    (?: [eE](?P<e>[-+]?\d{{1,3}})(?!\w) | [ ]?(?:[×*x·]|\\times|\\cdot)[ ]?10\^\{{?(?P<ten>[-+]?\d{{1,3}})\}}? )?
    """,
    re.VERBOSE | re.ASCII,
)
_MARK = re.compile(r"####[\s*]*")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"), "-")
_SIGNS = {"\u066a": "%", "\u066b": ".", "\u066c": ",", "\u2044": "/", "\u2215": "/"}  # Arabic signs; two slashes
_OPEN, _CLOSE = "\ufdd0\ufdd1"  # around a fraction that was one character or LaTeX; noncharacters of Unicode
_HIGH = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_BLANKS = re.compile(
    rf"(\A\s*(?!-)|####[ \t*]*|[={{]\s*)([-{''.join(map(chr, _DASHES))}])[{GAPS}]+(?=[\d$€£¥.\\{_OPEN}])"
)
"""Blanks between a sign and its number."""
_LATEX = (
    (r"\{,\}", ","),
    (r"\\[,;:! ]|~", "\u2009"),
    (r"\\([$%#_])", r"\1"),
    (
        r"\\[cdt]?frac\s*(?:\{\s*(-?)\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))",
        rf"\1{_OPEN}\2\3/\4\5{_CLOSE}",
    ),
    (rf"(?<=\d)[{GAPS}]*{_OPEN}|{_CLOSE}(?={_OPEN}?\d)", " "),  # `5 ½` is a mixed number
    (f"[{_OPEN}{_CLOSE}]", ""),
    (r"(?<=[^\W\d_])(\}?\$?)\^(?:\{-?\d+\}|-?\d+)", r"\1"),  # cm^2
)


def number_of(text: str) -> Fraction | None:
    """Return the final number of a text; `None` if there is none."""
    text = plain_numbers(text)
    for mark in _MARK.finditer(text):
        if found := _NUMBER.match(text, mark.end()):
            return _value(found)
    boxed = text.rpartition(r"\boxed{")
    for part in ([_inside(boxed[2])] if boxed[1] else []) + [text]:
        if numbers := list(_NUMBER.finditer(part)):
            return _value(numbers[-1])
    return None


def plain_numbers(text: str) -> str:
    """Convert digits, minus signs and fractions to ASCII, and remove LaTeX markup inside numbers."""
    text = re.sub(r"(?<=\d)⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda power: "^" + power[0].translate(_HIGH), text)
    text = _BLANKS.sub(r"\1\2", "".join(map(_plain, text))).translate(_DASHES)
    for pattern, plain in _LATEX:
        text = re.sub(pattern, plain, text)
    return text


def _plain(sign: str) -> str:
    if sign.isascii():
        return sign
    if sign.isdecimal():
        return str(unicodedata.digit(sign))
    if "\uff01" <= sign <= "\uff5e":  # full-width form of an ASCII character
        return chr(ord(sign) - 0xFEE0)
    if "VULGAR FRACTION" in unicodedata.name(sign, ""):
        return _OPEN + unicodedata.normalize("NFKC", sign).replace("\u2044", "/") + _CLOSE
    return _SIGNS.get(sign, sign)


def _inside(text: str) -> str:
    """Return the text before the closing brace; the opening brace precedes `text`."""
    depth = 1
    for place, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if not depth:
            return text[:place]
    return text


def _value(found: "re.Match[str]") -> Fraction | None:
    if len(found[0]) > LONGEST:
        return None
    parts = found.groupdict()
    if parts["fraction"]:
        *whole, above, below = re.findall(r"\d+", parts["fraction"])
        value = sum(map(Fraction, whole), Fraction(int(above), int(below)))
    elif parts["points"]:
        value = Fraction(parts["points"].replace(".", "").replace(",", "."))
    elif parts["gaps"]:
        value = Fraction(parts["gaps"].replace(parts["gap"], "").replace(",", "."))
    else:
        value = Fraction((parts["commas"] or parts["plain"]).replace(",", ""))
    power = int(parts["braced"] or parts["power"] or 1)
    if (not value and power < 0) or max(value.as_integer_ratio()).bit_length() * abs(power) > BITS:
        return None
    value = value**power * Fraction(10) ** int(parts["e"] or parts["ten"] or 0)
    return -value if parts["sign"] or parts["inner"] else value
