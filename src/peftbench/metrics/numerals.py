r"""Numbers in texts, and the final one, as the measure of GSM8K wants it.

The final number is the one right after the first `####`, as in the definition of the authors of GSM8K (their regular
expression takes the first match). Without one it is the last number in the last `\boxed{}`, or else of the text.

Numbers are read as people and LaTeX write them:

- with a currency before them, a per cent sign after them (`5%` is 5), digits of any script, full width included;
- with groups of three digits between commas, spaces of any width, apostrophes or `{,}`; with groups between points
  where nothing else can be meant (`1.000.000`, `1.000,50`): `1.000` is one, and `12,5` are two numbers;
- as fractions (`3/4`, `1 1/2`, `½`, `\frac{3}{4}`) and with a power of ten (`1.5e3`, `1.5 \times 10^{3}`);
- a hyphen, a minus or an en dash is a sign unless it stands after a letter, a digit or a bracket: `COVID-19`, `10–18`.
"""

import re
import unicodedata
from fractions import Fraction

LONGEST = 1000
"""Characters of a number; a longer one is none."""
GAPS = " \u00a0\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_FORMS = rf"""
    (?P<fraction> (?<![\d/.,]) (?:\d+[{GAPS}])? \d+ [ ]?/[ ]? [1-9]\d* (?![\d/]|[.,]\d) )
  | (?P<points> \d{{1,3}} (?: (?:\.\d{{3}})+ ,\d+ | (?:\.\d{{3}}){{2,}} ) (?![\d]|[.,]\d) )
  | (?P<gaps> \d{{1,3}} (?P<gap>[{GAPS}'’]) \d{{3}} (?:(?P=gap)\d{{3}})* (?!\d) (?:[.,]\d+)? )
  | (?P<commas> (?: \d{{1,3}} (?:,\d{{3}})+ | \d{{1,2}} (?:,\d\d)+ ,\d{{3}} ) (?!\d) (?:\.\d+)? )
  | (?P<plain> \d+ (?:\.\d+)? | (?<![\d.])\.\d+ )
"""
_NUMBER = re.compile(
    rf"""
    (?P<sign> (?<![A-Za-zÀ-ɏ\d_)\]])- )? (?: [$€£¥](?P<inner>-)? )? (?: {_FORMS} )
    (?: [eE](?P<e>[-+]?\d{{1,3}})(?!\w) | [ ]?(?:[×*x·]|\\times|\\cdot)[ ]?10\^\{{?(?P<ten>[-+]?\d{{1,3}})\}}? )?
    """,
    re.VERBOSE | re.ASCII,
)
_MARK = re.compile(r"####[\s*]*")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"), "-")
_LATEX = (
    (r"\{,\}", ","),
    (r"\\[,;:! ]|~", "\u2009"),
    (r"\\([$%#])", r"\1"),
    (r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r" \1/\2"),
)


def number_of(text: str) -> Fraction | None:
    """The final number of a text; `None` if there is none."""
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
    """A text with the digits, the minus and the fractions of ASCII, and without LaTeX's marks inside numbers."""
    text = "".join(map(_plain, text)).translate(_DASHES)
    for pattern, plain in _LATEX:
        text = re.sub(pattern, plain, text)
    return text


def _plain(sign: str) -> str:
    if sign.isascii():
        return sign
    if sign.isdecimal():
        return str(unicodedata.digit(sign))
    if "\uff01" <= sign <= "\uff5e":  # the full-width form of a character of ASCII
        return chr(ord(sign) - 0xFEE0)
    if "VULGAR FRACTION" in unicodedata.name(sign, ""):
        return " " + unicodedata.normalize("NFKC", sign).replace("\u2044", "/")
    return sign


def _inside(text: str) -> str:
    """What stands before the brace that closes the one before a text."""
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
    power = int(parts["e"] or parts["ten"] or 0)
    value *= Fraction(10) ** power
    return -value if parts["sign"] or parts["inner"] else value
