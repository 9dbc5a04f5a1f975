"""Decode text files by byte order mark, as UTF-8 or with a given encoding; suggest an encoding on failure."""

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""UTF-32 comes first because its little-endian mark begins with that of UTF-16."""
NO_TEXT = {b"PK\x03\x04": "a zip archive, as spreadsheets are", b"\x1f\x8b": "compressed by gzip", b"PAR1": "parquet"}
"""First bytes of binary files that are saved with the extension of a text file."""
SHOWN = 40
LOOKED_AT = 4096

Parse = Callable[[str], Sequence[Mapping[str, Any]]]


def decoded_text(content: bytes, encoding: str, parse: Parse) -> str:
    """Return the text of a file without its byte order mark. `encoding` is used if the file is not UTF-8.

    `parse` splits text into rows and locates the row of an undecodable byte. Raises `ValueError`, which suggests an
    encoding.
    """
    for mark, name in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return _strictly(content[len(mark) :], name, name, parse)
    for begin, kind in NO_TEXT.items():
        if content.startswith(begin):
            raise ValueError(f"it is no text, but {kind}: save it as text, or give it the ending of what it is")
    if encoding and not _is_utf8(content):
        return _strictly(content, encoding, encoding, parse)
    if wide := _wide(content):
        raise ValueError(f"every other byte is 0, as in UTF-16: {_way_out(wide)}")
    return _strictly(content, "utf-8", "", parse)


def _strictly(content: bytes, encoding: str, given: str, parse: Parse) -> str:
    try:
        return content.decode(encoding)
    except LookupError:
        raise ValueError(f"encoding '{encoding}' is not known: use a name of Python's, as cp1252 or gb18030") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f"{_row(content.decode(encoding, 'replace'), parse)}line {line}"
        why = f"'{encoding}' codec can't decode byte 0x{content[error.start]:02x} in {where}"
        if given:
            raise ValueError(f"{why}: is its encoding another one?") from None
        raise ValueError(f"{why}; {_guess(content, error.start)}") from None


def _is_utf8(content: bytes) -> bool:
    """Return True for valid UTF-8 with non-ASCII characters and without NUL, which occurs in UTF-16."""
    if content.isascii() or b"\0" in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _wide(content: bytes) -> str:
    """Detect UTF-16 without a byte order mark by its zero bytes; return its name or an empty string."""
    head = content[:LOOKED_AT]
    low, high = head[::2].count(0), head[1::2].count(0)
    if max(low, high) * 4 < len(head) or not head:
        return ""
    return "utf-16-be" if low > high else "utf-16-le"


def _row(text: str, parse: Parse) -> str:
    """Return the number of the first row with a replacement character, as text, or an empty string."""
    try:
        rows = parse(text)
    except ValueError:
        return ""
    for number, row in enumerate(rows, 1):
        if any("\ufffd" in cell for cell in row.values() if isinstance(cell, str)):
            return f"row {number}, "
    return ""


def _guess(content: bytes, start: int) -> str:
    """Suggest an encoding, with the line as it would be decoded."""
    if re.match(rb"\xed[\xa0-\xbf][\x80-\xbf]", content[start : start + 3]):
        return "it is half of a character (a lone surrogate): mend the text"
    begin, end = content.rfind(b"\n", 0, start) + 1, content.find(b"\n", start)
    line = content[begin : end if end >= 0 else len(content)].strip()
    if not re.search(rb"[\x80-\xff]{4}", content):
        # These five bytes are undefined in cp1252.
        name = "latin-1" if re.search(rb"[\x81\x8d\x8f\x90\x9d]", content) else "cp1252"
        seen = "".join(sign for sign in line.decode(name)[:SHOWN] if sign.isprintable())
        return f"it may be {name}, which would read '{seen}' there: {_way_out(name)}"
    return f"it is not of a Western language: {_way_out('NAME')}, as gb18030, shift_jis, euc_kr, cp1251"


def _way_out(name: str) -> str:
    return f'give encoding = "{name}", or save it as UTF-8'
