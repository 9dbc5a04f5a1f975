"""Base models by name: the bundled one, well-known ones by alias, any directory, any id of the Hugging Face Hub."""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from peftbench.registry import UserError, did_you_mean

HERE = Path(__file__).parent
KNOWN = HERE / "known.toml"
"""Aliases with Hub id and architecture facts, so that estimates need neither a network nor access."""
SAMPLE_BYTES = 1 << 20


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


@cache
def known() -> dict[str, Model]:
    """Models by alias."""
    entries = tomllib.loads(KNOWN.read_text())
    for entry in entries.values():
        if "bundled" in entry:
            entry["source"] = str(HERE / entry.pop("bundled"))
    return {name: Model(name=name, **entry) for name, entry in entries.items()}


def find(name: str) -> Model:
    """The model of an alias, a directory in Hugging Face format, or a Hub id `org/name`.

    Raises `UserError` for a directory that is not there or holds no model, and for an unknown alias.
    """
    if name in known():
        return known()[name]
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"model {name}: the directory has no config.json; give one in Hugging Face format")
        return Model(name=path.resolve().name, source=str(path.resolve()), version=fingerprint(path))
    if name.startswith((".", "~", "/")) or name.count("/") > 1:
        raise UserError(f"model {name}: no such directory")
    if "/" in name:
        return Model(name=name, source=name)
    raise did_you_mean("model (nor a directory, nor a Hub id org/name)", name, list(known()))


def fingerprint(directory: Path) -> str:
    """Eight hexadecimal digits of a model directory: its configuration, and names, sizes and samples of its weights."""
    try:
        config = json.loads((directory / "config.json").read_text())
    except ValueError as error:
        raise UserError(f"model {directory}: its config.json is not JSON: {error}") from error
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in sorted(directory.glob("*")):
        if path.suffix in {".safetensors", ".bin", ".json", ".model"} and path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as content:
                digest.update(content.read(SAMPLE_BYTES))
                content.seek(max(0, size - SAMPLE_BYTES))
                digest.update(content.read())
    return digest.hexdigest()[:8]
