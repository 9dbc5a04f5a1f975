"""Base models by name: the bundled one, well-known ones by alias, any directory, any id of the Hugging Face Hub."""

import contextlib
import hashlib
import json
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from peftbench.cache import cache_directory
from peftbench.registry import UserError, did_you_mean

HERE = Path(__file__).parent
KNOWN = HERE / "known.toml"
"""Aliases with Hub id and architecture facts, so that estimates need neither a network nor access."""
LARGE_BYTES = 64 << 20
QUANTISATIONS = ("nf4", "int8")
"""How a model's linear layers may be quantised."""


@dataclass(frozen=True)
class Model:
    """A base model: where it is loaded from, and what tells one version of it from another."""

    name: str
    source: str
    revision: str | None = None
    version: int | str = 1
    config: dict[str, Any] | None = None
    about: str = ""

    @property
    def directory(self) -> Path | None:
        """The local directory, or none if the model is on the Hub."""
        path = Path(self.source).expanduser()
        return path if path.is_dir() else None

    @property
    def address(self) -> str:
        """How others find it: its id on the Hub, or the alias of a bundled one; a directory has its path alone."""
        return self.name if self.directory and self.name in known() else self.source


@cache
def known() -> dict[str, Model]:
    """Models by alias."""
    entries = tomllib.loads(KNOWN.read_text())
    for entry in entries.values():
        if "bundled" in entry:
            entry["source"] = str(HERE / entry.pop("bundled"))
    return {name: Model(name=name, **entry) for name, entry in entries.items()}


def find(name: str) -> Model:
    """The model of an alias, a directory in Hugging Face format, or a Hub id `org/name`, with the facts of its alias.

    Raises `UserError` for a directory that is not there or holds no model, and for an unknown alias.
    """
    if name in known():
        model = known()[name]
        return replace(model, version=fingerprint(model.directory)) if model.directory else model
    path = Path(name).expanduser()
    if path.is_dir():
        _check(path)
        return Model(name=path.resolve().name, source=str(path.resolve()), version=fingerprint(path))
    if name.startswith((".", "~", "/")) or name.count("/") > 1:
        raise UserError(f"model {name}: no such directory")
    if "/" in name:
        facts = next((model.config for model in known().values() if model.source == name), None)
        return Model(name=name, source=name, config=facts)
    raise did_you_mean("model (nor a directory, nor a Hub id org/name)", name, list(known()))


def address(name: str) -> str:
    """How others find the model that a run asked for by `name`; of a directory, which they lack, its last part."""
    if name in known():
        return known()[name].address
    on_hub = name.count("/") == 1 and not name.startswith((".", "~", "/"))
    return name if on_hub else Path(name).name


def _check(directory: Path) -> None:
    if not (directory / "config.json").is_file():
        raise UserError(f"model {directory}: it has no config.json; give a directory in Hugging Face format")
    try:
        json.loads((directory / "config.json").read_text())
    except ValueError as error:
        raise UserError(f"model {directory}: its config.json is not JSON: {error}") from error


def fingerprint(directory: Path) -> str:
    """Eight hexadecimal digits of what a model directory holds: configuration, tokenizer, weights, bit for bit."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*")):
        if path.suffix in {".safetensors", ".bin", ".json", ".model", ".jinja"} and path.is_file():
            digest.update(f"{path.name} {file_digest(path)};".encode())
    return digest.hexdigest()[:8]


def file_digest(path: Path) -> str:
    """SHA-256 of a file; that of a large one is kept, and computed again when its size or time changes."""
    stat = path.stat()
    asked = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    kept = cache_directory() / "digests" / hashlib.sha256(asked.encode()).hexdigest()[:32]
    if stat.st_size > LARGE_BYTES and kept.is_file():
        return kept.read_text()
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if stat.st_size > LARGE_BYTES:
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(found)
    return found
