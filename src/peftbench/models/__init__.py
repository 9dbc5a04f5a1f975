"""Base models by alias (bundled or on the Hugging Face Hub), by local directory or by Hub id."""

import contextlib
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from peftbench.core.cache_folder import cache_directory
from peftbench.core.registry import UserError, did_you_mean, error_line
from peftbench.core.spec import display_name

HERE = Path(__file__).parent
KNOWN = HERE / "known.toml"
"""Aliases with Hub id and configuration, so that estimates need neither a network nor access rights."""
LARGE_BYTES = 64 << 20
QUANTISATIONS = ("nf4", "int8")
"""Supported quantisations of linear layers."""


@dataclass(frozen=True)
class Model:
    """A base model: its source and its version."""

    name: str
    source: str
    revision: str | None = None
    version: int | str = 1
    config: dict[str, Any] | None = None
    about: str = ""

    @property
    def directory(self) -> Path | None:
        """The local directory; `None` if the model is on the Hub."""
        path = Path(self.source).expanduser()
        return path if path.is_dir() else None

    @property
    def address(self) -> str:
        """The Hub id, the alias of a bundled model, or the path of a directory."""
        return self.name if self.directory and self.name in known_models() else self.source


@cache
def known_models() -> dict[str, Model]:
    """Return the models by alias."""
    entries = tomllib.loads(KNOWN.read_text(encoding="utf-8"))
    for entry in entries.values():
        if "bundled" in entry:
            entry["source"] = str(HERE / entry.pop("bundled"))
    return {name: Model(name=name, **entry) for name, entry in entries.items()}


def find(name: str) -> Model:
    """Return the model of an alias, a directory in Hugging Face format, or a Hub id `org/name`.

    An alias or Hub id may end in `@` and a revision: a commit, tag or branch. The Hub is not contacted. Raises
    `UserError` for a directory that does not exist or contains no model, and for an unknown alias.
    """
    if name in known_models():
        model = known_models()[name]
        return replace(model, version=fingerprint(model.directory)) if model.directory else model
    path = Path(name).expanduser()
    if path.is_dir():
        _check(path)
        return Model(name=path.resolve().name, source=str(path.resolve()), version=fingerprint(path))
    if name.startswith((".", "~", "/")):
        raise UserError(f"model {name}: no such directory")
    plain, at, revision = name.partition("@")
    if at and revision:
        model = find(plain)
        if model.directory:
            raise UserError(f"model {name}: {plain} is no model of the Hub, so it has no revisions")
        return replace(model, revision=revision)
    if name.count("/") > 1:
        raise UserError(f"model {name}: no such directory")
    if "/" in name:
        facts = next((model.config for model in known_models().values() if model.source == name), None)
        return Model(name=name, source=name, config=facts)
    raise did_you_mean("model (nor a directory, nor a Hub id org/name)", name, list(known_models()))


def resolved(model: Model) -> Model:
    """Resolve the revision of a Hub model to its current commit.

    The model is returned unchanged if it is local, or if neither the Hub nor the local cache knows the commit. Raises
    `UserError` for a repository or a revision that the Hub does not have.
    """
    if model.directory:
        return model
    from peftbench.models.hub_commit import commit

    found = commit(model.source, model.revision)
    return replace(model, revision=found, version=found) if found else model


def at(name: str, version: int | str) -> Model:
    """Return the model of a name; if it is on the Hub, at the commit `version`."""
    model = find(name)
    if model.directory or not is_commit(version):
        return model
    return replace(model, revision=str(version), version=version)


def is_commit(version: object) -> bool:
    """Return True if a version is a full commit hash."""
    return isinstance(version, str) and re.fullmatch(r"[0-9a-f]{40}", version) is not None


def address(name: str) -> str:
    """Return the public name of a model: its `address` or Hub id, or the last path component of a directory."""
    return known_models()[name].address if name in known_models() else display_name(name)


def same_base(first: str, second: str) -> bool:
    """Return True if two names may mean the same base model.

    Hub ids and names of bundled models must be equal; otherwise the last path components are compared. Case is ignored.
    """
    names = [known_models()[name].address if name in known_models() else name for name in (first, second)]
    on_hub = ["/" in name and display_name(name) == name for name in names]
    if all(on_hub) or any(name in known_models() and known_models()[name].directory for name in names):
        return names[0].casefold() == names[1].casefold()
    return Path(names[0]).name.casefold() == Path(names[1]).name.casefold()


def _check(directory: Path) -> None:
    if not (directory / "config.json").is_file():
        raise UserError(f"model {directory}: it has no config.json; give a directory in Hugging Face format")
    try:
        held = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"model {directory}: its config.json is not JSON: {error_line(error)}") from error
    if not isinstance(held, dict):
        raise UserError(f"model {directory}: its config.json is no table of settings, but {type(held).__name__}")


def fingerprint(directory: Path) -> str:
    """Return eight hexadecimal digits of a hash over the configuration, tokenizer and weight files of a directory."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*")):
        if path.suffix in {".safetensors", ".bin", ".json", ".model", ".jinja"} and path.is_file():
            digest.update(f"{path.name} {file_digest(path)};".encode())
    return digest.hexdigest()[:8]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; for a large file it is cached until its size or modification time changes."""
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
