"""The seal of a run: SHA-256 digests by which any damage to its files is found.

`result.json` lists every other file of its folder with size and digest (`files`), and ends with a digest of its own
bytes (`digest`), which is computed with zeros in its place.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftbench.core.cache_folder import cache_directory
from peftbench.core.files import parse_json, read_bytes, write_atomically

RESULT = "result.json"
ZEROS = "0" * 64
SEALED_SINCE = 2
"""The first `result_schema` whose results have a seal."""

Files = Mapping[str, Mapping[str, Any]]
"""By path within the folder of a run: `bytes` and `sha256`."""


class DamagedError(ValueError):
    """A file is not what it was when it was written. `path`: which one."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


def seal(content: Mapping[str, Any], folder: Path) -> bytes:
    """The text of `result.json`: `content` (in JSON's types), the digests of the files in `folder`, and its own."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RESULT and not path.name.endswith(f".{RESULT}")
    }
    text = json.dumps({**content, "files": files, "digest": ZEROS}, indent=1, ensure_ascii=False) + "\n"
    # From the right: the digest is the last field, and other fields may hold any text.
    before, _, after = text.rpartition(ZEROS)
    return f"{before}{hashlib.sha256(text.encode()).hexdigest()}{after}".encode()


def unseal(path: Path, newest: int) -> tuple[dict[str, Any], Files]:
    """The content of a `result.json` without its seal, and the digests it has of its folder's files.

    `newest`: the greatest `result_schema` that can be read. Results written before there were seals have none, and no
    digests. Raises `DamagedError`.
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
                raise ValueError("its content is not what was written")
    except (OSError, TypeError, ValueError) as error:
        raise DamagedError(path, str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")) from error
    return content, files


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class Verified:
    """Checks files against their digests, and remembers which were whole.

    A file is read again only when its size, modification time (ns) or inode has changed since it was found whole. The
    memory is a file in the cache, one for each store; without it, or with `fresh`, every byte is read.
    """

    def __init__(self, root: Path, fresh: bool = False) -> None:
        self.root = root
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        self.memory = cache_directory() / "verified" / f"{name}.json"
        self.known: dict[str, list[int]] = {}
        if not fresh:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                self.known = dict(parse_json(read_bytes(self.memory)).items())
        self.seen: dict[str, list[int]] = {}

    def check(self, folder: Path, files: Files) -> None:
        """Raises `DamagedError` for the first file of a run that is missing, or not what was written."""
        place = folder.relative_to(self.root).as_posix()
        for name, facts in files.items():
            path = folder / name
            try:
                found = path.stat()
                identity = [found.st_size, found.st_mtime_ns, found.st_ino]
                # The digest is part of the key: a result that was replaced has other files under the same names.
                key = f"{place}/{name} {facts['sha256'][:16]}"
                if self.known.get(key) != identity and not (
                    path.is_file() and found.st_size == facts["bytes"] and sha256_of(path) == facts["sha256"]
                ):
                    raise DamagedError(path, "its content is not what was written")
                self.seen[key] = identity
            except FileNotFoundError:
                raise DamagedError(path, "it is missing") from None
            except (OSError, KeyError, TypeError) as error:
                raise DamagedError(path, f"it cannot be checked: {error}") from error

    def remember(self) -> None:
        """Keep what was found whole. A memory that cannot be written costs time and nothing else."""
        if self.seen == self.known:
            return
        with contextlib.suppress(OSError):
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.memory, json.dumps(self.seen).encode())
