"""Reading of untrusted files, and atomic writing of files."""

import json
import math
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LARGEST = 1 << 28
"""Size limit in bytes of a file that is read into memory."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of `path`; at the exit of the context it replaces `path` atomically.

    Its name ends with the name of `path`, and is unique among all processes and machines that share the folder.
    """
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises `OSError` if the file cannot be read, `ValueError` for a pipe, a device, a folder, or a larger file.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError(f"{path} is not a regular file")
    if facts.st_size > most:
        raise ValueError(f"{path} has {facts.st_size:,} bytes, more than {most:,}")
    return path.read_bytes()


def parse_json(content: bytes | str) -> Any:
    """Parse a JSON document whose numbers are finite and fit into 64 bits, and whose text can be encoded as UTF-8.

    Raises `ValueError` for any other content, including nesting that is too deep.
    """
    text = content.decode() if isinstance(content, bytes) else content
    try:
        document = json.loads(text, parse_float=_finite, parse_int=_integer, parse_constant=_refuse)
        if "\\ud" in text.lower():
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) >= 1 << 64:
        raise ValueError(f"the number {text[:20]}… is too large")
    return number


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")
