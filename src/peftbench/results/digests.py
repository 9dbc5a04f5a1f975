"""The seal of a run: SHA-256 digests that detect damage to its files.

`result.json` lists every other file of its folder with size and digest (`files`). Its last field, `digest`, is the
digest of its own bytes, computed with zeros in place of the digest.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftbench.core.files import parse_json, read_bytes

RESULT = "result.json"
ZEROS = "0" * 64
SEALED_SINCE = 2
"""The first `result_schema` whose results have a seal."""

Files = Mapping[str, Mapping[str, Any]]
"""Path within the folder of a run to `bytes` and `sha256`."""


class DamagedError(ValueError):
    """A file at `path` is missing, unreadable or changed since it was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


def seal(content: Mapping[str, Any], folder: Path) -> bytes:
    """Return the bytes of `result.json`: `content` (JSON values), the digests of the files in `folder`, and its own."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RESULT and not path.name.endswith(f".{RESULT}")
    }
    text = json.dumps({**content, "files": files, "digest": ZEROS}, indent=1, ensure_ascii=False) + "\n"
    # From the right: the digest is the last field, and other fields may contain any text.
    before, _, after = text.rpartition(ZEROS)
    return f"{before}{hashlib.sha256(text.encode()).hexdigest()}{after}".encode()


def unseal(path: Path, newest: int) -> tuple[dict[str, Any], Files]:
    """Return the content of a `result.json` without its seal, and the digests of the files in its folder.

    `newest` is the highest `result_schema` that can be read. Results older than `SEALED_SINCE` have no digests. Raises
    `DamagedError` if the file is missing, unreadable, too new or changed.
    """
    try:
        raw = read_bytes(path)
        content = parse_json(raw)
        if not isinstance(content, dict):
            raise TypeError("it is not a JSON object")
        files, digest, schema = content.pop("files", {}), content.pop("digest", None), content.get("result_schema", 1)
        if schema > newest:
            raise ValueError("it was written by a newer version of peftbench")
        if digest is None and schema >= SEALED_SINCE:
            raise ValueError("its digest is missing")
        if digest is not None:
            before, found, after = raw.rpartition(str(digest).encode())
            if not found or hashlib.sha256(before + ZEROS.encode() + after).hexdigest() != digest:
                raise ValueError("its content does not match its digest")
    except (OSError, TypeError, ValueError) as error:
        raise DamagedError(path, str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")) from error
    return content, files


def sha256_of(path: Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_files(folder: Path, files: Files) -> None:
    """Check the files of a run. Raises `DamagedError` for the first that is missing or changed."""
    for name, facts in files.items():
        path = folder / name
        try:
            whole = path.is_file() and path.stat().st_size == facts["bytes"] and sha256_of(path) == facts["sha256"]
        except (OSError, KeyError, TypeError) as error:
            raise DamagedError(path, f"it cannot be checked: {error}") from error
        if not whole:
            raise DamagedError(path, "its content does not match its digest" if path.exists() else "it is missing")
