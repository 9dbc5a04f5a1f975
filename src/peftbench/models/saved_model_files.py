"""The files of a trained model: which of a folder must be kept to use it, and what they are known by."""

import hashlib
import json
from pathlib import Path

from peftbench.core.registry import UserError
from peftbench.models import file_digest

ADAPTER, MODEL = "adapter_config.json", "config.json"
"""Configurations of an adapter of `peft` and of a whole model of `transformers`."""
INDEX = ".index.json"
"""Of weights in several files: which tensor is in which."""
ORIGIN = "peftbench.json"
"""What a run of ours says beside the weights it keeps: its id and seed, its method, its base."""
TRAINED = "trained.safetensors"
"""The trained tensors of a method that has no format of its own, by the names of the adapted model's parameters."""
BESIDE = {ADAPTER: (ORIGIN,), MODEL: (ORIGIN, "generation_config.json")}
WEIGHTS: dict[str, tuple[str, ...]] = {
    ADAPTER: ("adapter_model.safetensors", "adapter_model.bin"),
    MODEL: tuple(f"{name}{index}" for name in ("model.safetensors", "pytorch_model.bin") for index in ("", INDEX)),
}
"""What holds the weights, the first that there is: a file, or the index of the files that do."""


def kind(folder: Path) -> str | None:
    """The file by which a folder is known as an adapter, a whole model or one of ours; none if it is none of these."""
    return next((name for name in (ADAPTER, MODEL, TRAINED) if (folder / name).is_file()), None)


def needed_files(folder: Path) -> list[Path]:
    """The files that must be kept to use the model of a folder on its base: configuration and weights.

    What a trainer leaves beside them is not among them: checkpoints, states of the optimiser, logs, the tokenizer. Of a
    folder of another kind, and of our own format, these are all files. Raises `UserError` if one is not there.
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
    """Bytes of the weights among them."""
    return sum(path.stat().st_size for path in needed_files(folder) if path.suffix in {".safetensors", ".bin"})


def identity(folder: Path) -> str:
    """Eight hexadecimal digits of their names and contents."""
    found = hashlib.sha256()
    for path in sorted(needed_files(folder)):
        found.update(f"{path.relative_to(folder).as_posix()} {file_digest(path)};".encode())
    return found.hexdigest()[:8]
