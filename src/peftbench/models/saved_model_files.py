"""Files of a saved trained model: which of them are needed, and their hash."""

import hashlib
import json
from pathlib import Path

from peftbench.core.registry import UserError
from peftbench.models import file_digest

ADAPTER, MODEL = "adapter_config.json", "config.json"
"""Configurations of an adapter of `peft` and of a whole model of `transformers`."""
INDEX = ".index.json"
"""Suffix of the index of sharded weights."""
ORIGIN = "peftbench.json"
"""Written by a run next to saved weights: run id, seed, method and base model."""
TRAINED = "trained.safetensors"
"""Trained tensors of a method without a separate format, by parameter name of the adapted model."""
BESIDE = {ADAPTER: (ORIGIN,), MODEL: (ORIGIN, "generation_config.json")}
WEIGHTS: dict[str, tuple[str, ...]] = {
    ADAPTER: ("adapter_model.safetensors", "adapter_model.bin"),
    MODEL: tuple(f"{name}{index}" for name in ("model.safetensors", "pytorch_model.bin") for index in ("", INDEX)),
}
"""Weight files or indices of weight files; the first that exists is used."""


def kind(folder: Path) -> str | None:
    """Return the file that identifies the format of a folder: adapter, whole model or `TRAINED`; else `None`."""
    return next((name for name in (ADAPTER, MODEL, TRAINED) if (folder / name).is_file()), None)


def needed_files(folder: Path) -> list[Path]:
    """Return the files that are needed to load the model of a folder: configuration and weights.

    Other files of a trainer are excluded: checkpoints, optimiser states, logs, the tokenizer. For `TRAINED` and unknown
    formats, all files are returned. Raises `UserError` if a file is missing.
    """
    known = kind(folder)
    if known in (None, TRAINED):
        return sorted(path for path in folder.rglob("*") if path.is_file())
    names = [known, *(name for name in BESIDE[known] if (folder / name).is_file())]
    if found := next((name for name in WEIGHTS[known] if (folder / name).is_file()), None):
        names.append(found)
        if found.endswith(INDEX):
            names += _listed(folder / found)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"{folder}: {missing[0]} is not there, and a part of its weights")
    return [folder / name for name in names]


def _listed(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: it cannot be read as an index of weights: {error}") from error


def weight_bytes(folder: Path) -> int:
    """Return the total size of the weight files in bytes."""
    return sum(path.stat().st_size for path in needed_files(folder) if path.suffix in {".safetensors", ".bin"})


def identity(folder: Path) -> str:
    """Return eight hexadecimal digits of a hash over names and contents of the needed files."""
    found = hashlib.sha256()
    for path in sorted(needed_files(folder)):
        found.update(f"{path.relative_to(folder).as_posix()} {file_digest(path)};".encode())
    return found.hexdigest()[:8]
