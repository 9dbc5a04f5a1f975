r"""Numbers in texts, and the final one, as the measure of GSM8K wants it.

The final number is the one right after the first `####`, as in the definition of the authors of GSM8K (their regular
expression takes the first match). Without one it is the last number in the last `\boxed{}`, or else of the text.

Numbers are read as people and LaTeX write them:

- with a currency before them, a per cent sign after them (`5%` is 5), digits of any script, full width included;
- with groups of three digits between commas, spaces of any width, apostrophes, `_` or `{,}`; with groups between points
  where nothing else can be meant (`1.000.000`, `1.000,50`): `1.000` is one, and `12,5` are two numbers;
- as fractions (`3/4`, `1 1/2`, `5 ½`, `\frac{3}{4}`, `\frac12`), as powers (`10^3`, `2^{10}`, `10³`) and with a power
  of ten (`1.5e3`, `1.5 \times 10^{3}`); the power of a letter, as in `18 cm^2`, is no number;
- a hyphen, a minus or an en dash is a sign unless it stands after a letter, a digit, a unit or a bracket: `COVID-19`,
  `10–18`, `10%-20%`. Blanks may follow a sign after `####`, `=` or `{`, and one other than a hyphen (a list may have
  that) at the start of the text.
"""

import re
import unicodedata
from fractions import Fraction

LONGEST = 1000
"""Characters of a number; a longer one is none."""
BITS = 4 * LONGEST
"""Of the numerator, or the denominator, of a power; a greater one is none."""
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
_SIGNS = {"\u066a": "%", "\u066b": ".", "\u066c": ",", "\u2044": "/", "\u2215": "/"}  # of Arabic; two slashes
_OPEN, _CLOSE = "\ufdd0\ufdd1"  # around a fraction that was one character or LaTeX; Unicode has no such characters
_HIGH = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_BLANKS = re.compile(
    rf"(\A\s*(?!-)|####[ \t*]*|[={{]\s*)([-{''.join(map(chr, _DASHES))}])[{GAPS}]+(?=[\d$€£¥.\\{_OPEN}])"
)
"""Those between a sign and its number."""
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
    if "\uff01" <= sign <= "\uff5e":  # the full-width form of a character of ASCII
        return chr(ord(sign) - 0xFEE0)
    if "VULGAR FRACTION" in unicodedata.name(sign, ""):
        return _OPEN + unicodedata.normalize("NFKC", sign).replace("\u2044", "/") + _CLOSE
    return _SIGNS.get(sign, sign)


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
    power = int(parts["braced"] or parts["power"] or 1)
    if (not value and power < 0) or max(value.as_integer_ratio()).bit_length() * abs(power) > BITS:
        return None
    value = value**power * Fraction(10) ** int(parts["e"] or parts["ten"] or 0)
    return -value if parts["sign"] or parts["inner"] else value
