"""Reading files that anything may have been done to, and writing files that are whole or not there."""

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
"""Bytes of the largest file that is read into memory whole."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to be written, which takes its place when the context is left: it is whole or not there.

    Its name ends as that of `path`, and no other process has it, on this machine or on another that shares the folder.
    """
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def sync(path: Path) -> None:
    """Make sure that a file, or the list of a folder, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises `OSError` for a file that cannot be read, `ValueError` for a pipe, a device, a folder, or a larger file.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError(f"{path} is not a regular file")
    if facts.st_size > most:
        raise ValueError(f"{path} has {facts.st_size:,} bytes, more than {most:,}")
    return path.read_bytes()


def parse_json(content: bytes | str) -> Any:
    """A JSON document whose numbers are finite and fit into 64 bits, and whose text can be written as UTF-8.

    Raises `ValueError` for anything else, however deeply it is nested.
    """
    text = content.decode() if isinstance(content, bytes) else content
    try:
        found = json.loads(text, parse_float=_finite, parse_int=_integer, parse_constant=_refuse)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


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
    raise ValueError(f"{name} is not a number of JSON")
