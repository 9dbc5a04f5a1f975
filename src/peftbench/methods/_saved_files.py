"""Saved trained models: inspect a folder, check its base model, and load it onto that base."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from peftbench.core.registry import UnknownNameError, UserError, error_line
from peftbench.core.seeds import stream
from peftbench.core.spec import Choice, Noun, RunSpec
from peftbench.core.text_escaping import problem
from peftbench.methods import METHODS, Adapted
from peftbench.models import Model, find, same_base
from peftbench.models.saved_model_files import ADAPTER, MODEL, ORIGIN, TRAINED, kind
from peftbench.models.weight_loading import cannot_load, read_network

SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
"""Configuration fields that must be equal for a fully trained model and its base."""


@dataclass(frozen=True)
class Kept:
    """A folder with a trained model. `base` and `version` identify its base model, if known.

    `seed`: seed of the run, which may have chosen the layers.
    """

    folder: Path
    base: str = ""
    version: int | str = 1
    method: Choice | None = None
    run: str = ""
    quantise: str | None = None
    seed: int | None = None

    @property
    def called(self) -> str:
        """Name in tables: method and run id if a run of peftbench saved it, else the folder."""
        if self.method is not None:
            return f"saved {self.method} {self.run}".strip()
        name, parent = self.folder.name, self.folder.parent.name
        return f"saved {parent}/{name}" if name == "adapter" or name.startswith("checkpoint-") else f"saved {name}"


class Origin(Noun):
    """The content of `ORIGIN`. Unknown fields, of later versions, are ignored."""

    model_config = ConfigDict(extra="ignore")

    run: str
    seed: int
    method: Choice
    base: str
    base_version: int | str
    base_quantised: str | None


def examine(folder: Path) -> Kept:
    """Inspect a folder. Raises `UserError` if it does not exist or contains no valid trained model."""
    if not folder.is_dir():
        raise UserError(f"adapter {folder}: no such directory")
    if kind(folder) is None:
        raise UserError(f"adapter {folder}: it has neither {ADAPTER} (peft), {MODEL} (a whole model) nor {TRAINED}")
    config, origin = _json(folder / ADAPTER), _json(folder / ORIGIN)
    if not origin:
        base = config.get("base_model_name_or_path") or ""
        if not isinstance(base, str):
            raise UserError(f"adapter {folder}: base_model_name_or_path in its {ADAPTER} must be text, not {base!r}")
        if (folder / ADAPTER).is_file():
            _check_type(folder, config.get("peft_type"))
        return Kept(folder, base=base)
    try:
        told = Origin.model_validate(origin)
    except ValidationError as error:
        raise UserError(f"adapter {folder}: its {ORIGIN} is not what a run writes: {problem(error)}") from None
    facts = {key: getattr(told, key) for key in ("method", "run", "seed", "base")}
    return Kept(folder, version=told.base_version, quantise=told.base_quantised, **facts)


def _check_type(folder: Path, said: Any) -> None:
    from peft import PeftType

    known = list(PeftType.__members__)
    if not isinstance(said, str):
        raise UserError(f"adapter {folder}: its {ADAPTER} has no peft_type that says which method it is")
    if said.upper() not in known:
        raise UserError(f"adapter {folder}: its peft_type {said} is none of the installed peft's")


def _json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; empty if there is no file. Raises `UserError` for other content."""
    if not path.is_file():
        return {}
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"adapter {path.parent}: its {path.name} cannot be read: {error_line(error)}") from error
    if not isinstance(held, dict):
        raise UserError(f"adapter {path.parent}: its {path.name} holds no table, but {type(held).__name__}")
    return held


def describe(spec: RunSpec, base: Model, quantise: str | None) -> dict[str, Any]:
    """Return the content of `ORIGIN`: run, seed, method, base model and its quantisation."""
    asked = spec.method.model_dump(mode="json", exclude_defaults=True)
    made = {"run": spec.id, "seed": spec.seed, "method": asked}
    return made | {"base": base.address, "base_version": base.version, "base_quantised": quantise}


def made_by(method: Choice) -> Choice:
    """Return the method that trained the adapter: that of the saved files if known, else the choice itself."""
    return (examine(Path(method.place)).method if method.place else None) or method


def check_base(kept: Kept, base: Model) -> None:
    """Raise `UserError` if an adapter was trained on another base model, by name or by content of its files."""
    way_out = "give that one with --model, or any_base = true (--any-base) if they are the same"
    if isinstance(kept.version, str) and isinstance(base.version, str):
        if kept.version != base.version:
            raise UserError(f"adapter {kept.folder} was made for other weights of {kept.base}: {way_out}")
    elif kept.base and not same_base(kept.base, base.address):
        raise UserError(f"adapter {kept.folder} was made for {kept.base}, not for {base.address}: {way_out}")


def put_on(model: Any, folder: Path, method: Choice | None = None, seed: int = 0, any_base: bool = False) -> Adapted:
    """Load the trained model of a folder onto its base for inference; on meta tensors, in its trainable form.

    `method`, `seed`: defaults for files that do not record them. Raises `UserError` if it does not fit the base.
    """
    kept, meta = examine(folder), next(model.parameters()).is_meta
    if not (meta or any_base):
        check_base(kept, find(model.name_or_path))
    known = replace(kept, method=kept.method or method, seed=seed if kept.seed is None else kept.seed)
    adapted = _adapted(model, known, meta)
    there = getattr(model, "is_quantized", False)
    if kept.method is not None and not meta and bool(kept.quantise) != there:
        trained, answering = kept.quantise or "no", "a" if there else "no"
        adapted.notes += (
            f"trained on a base with {trained} quantisation, answering on one with {answering} quantisation",
        )
    return adapted


def _adapted(model: Any, kept: Kept, meta: bool) -> Adapted:
    known = kind(kept.folder)
    if known == ADAPTER:
        return _with_adapter(model, kept, meta)
    if known == MODEL:
        return _whole(model, kept.folder, meta)
    return _of_method(model, kept, meta)


def _with_adapter(model: Any, kept: Kept, meta: bool) -> Adapted:
    from peftbench.methods._peft_model import from_files

    try:
        return from_files(model, kept.folder, meta)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # For the other errors, the exception type is more informative than the text.
        known = isinstance(error, (RuntimeError, ValueError))
        raise _unfit(kept.folder, " ".join(str(error).split())[:300] if known else error_line(error)) from error


def _whole(model: Any, folder: Path, meta: bool) -> Adapted:
    """Load a fully trained model in place of its base."""
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise cannot_load(f"adapter {folder}", error) from error
    for fact in SHAPE:
        asked, there = (getattr(each.get_text_config(), fact, None) for each in (config, model.config))
        if asked != there:
            raise _unfit(folder, f"its {fact} is {asked}, not {there}; it can be a model of its own, with method none")
    if meta:
        return Adapted(model.requires_grad_(True), model)
    network = read_network(type(model), folder, config, f"adapter {folder}", dtype=torch.float32)
    return Adapted(network.to(model.device).eval(), network)


def _of_method(model: Any, kept: Kept, meta: bool) -> Adapted:
    """Apply the method again and load the trained tensors, for methods without a separate file format."""
    import torch
    from safetensors.torch import load_file

    folder, method = kept.folder, kept.method
    if method is None:
        raise UserError(f"adapter {folder}: it has no {ORIGIN} that says which method made its {TRAINED}")
    try:
        unit = METHODS[method.name]
    except UnknownNameError as error:
        raise UserError(f"adapter {folder}: {error} (a method of your own needs --plugin FILE.py)") from error
    if unit.facts.version != method.version:
        raise UserError(f"adapter {folder} was made by version {method.version} of {unit.name}: train it again")
    if not meta:
        torch.manual_seed(stream(kept.seed or 0, "init"))
    adapted: Adapted = unit.function(model, **method.arguments)
    if meta:
        return adapted
    trained = load_file(folder / TRAINED, device=str(model.device))
    parameters = {n: p for n, p in adapted.model.named_parameters() if p.requires_grad}
    try:
        check_same(folder, _shapes(parameters), _shapes(trained))
    except UserError as problem:
        if adapted.remove is not None:
            adapted.remove()
        raise UserError(f"{problem}: not what {method} trains with seed {kept.seed}") from problem
    for name, tensor in trained.items():
        parameters[name].data = tensor
    adapted.model.eval()
    return adapted


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_same(folder: Path, asked: Mapping[str, tuple[int, ...]], there: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `UserError` unless the tensors of a file and of the adapted model agree in names and shapes."""
    for name in [*asked, *there]:
        if asked.get(name) != there.get(name):
            raise _unfit(folder, f"{name} is {there.get(name, 'absent')} there, {asked.get(name, 'absent')} here")


def _unfit(folder: Path, why: str) -> UserError:
    return UserError(f"adapter {folder} does not fit this base model: {why}")
