"""Trained models in files: what a folder holds, which base it is for, and how it is put on that base."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from peftbench.core.registry import UnknownNameError, UserError, error_line
from peftbench.core.safe_text import problem
from peftbench.core.seeds import stream
from peftbench.core.spec import Choice, Noun, RunSpec
from peftbench.methods import METHODS, Adapted
from peftbench.models import Model, find, same_base
from peftbench.models.saved_model_files import ADAPTER, MODEL, ORIGIN, TRAINED, kind
from peftbench.models.weight_loading import cannot_load, read_network

SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
"""Facts of a configuration in which a fully trained model and its base agree."""


@dataclass(frozen=True)
class Kept:
    """A folder of a trained model. `base` and `version` say what it was made for, as far as that is known.

    `seed`: that of the run, which may have chosen the layers.
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
        """What tables call it: method and id of the run of ours that kept it, else its folder."""
        if self.method is not None:
            return f"saved {self.method} {self.run}".strip()
        name, parent = self.folder.name, self.folder.parent.name
        return f"saved {parent}/{name}" if name == "adapter" or name.startswith("checkpoint-") else f"saved {name}"


class Origin(Noun):
    """The content of `ORIGIN`; what later versions add to it is left alone."""

    model_config = ConfigDict(extra="ignore")

    run: str
    seed: int
    method: Choice
    base: str
    base_version: int | str
    base_quantised: str | None


def examine(folder: Path) -> Kept:
    """What a folder holds. Raises `UserError` if it is not there or holds no trained model."""
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
    """The table that a file holds; none if it is not there. Raises `UserError` for anything else."""
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
    """The content of `ORIGIN`: what made the files, on which base, and how that was quantised."""
    asked = spec.method.model_dump(mode="json", exclude_defaults=True)
    made = {"run": spec.id, "seed": spec.seed, "method": asked}
    return made | {"base": base.address, "base_version": base.version, "base_quantised": quantise}


def made_by(method: Choice) -> Choice:
    """The method that trained what a choice puts on the base: itself, or that of its files if it is known."""
    return (examine(Path(method.place)).method if method.place else None) or method


def check_base(kept: Kept, base: Model) -> None:
    """Raises `UserError` for an adapter that was made for another base model, by name or by its files' content."""
    way_out = "give that one with --model, or any_base = true (--any-base) if they are the same"
    if isinstance(kept.version, str) and isinstance(base.version, str):
        if kept.version != base.version:
            raise UserError(f"adapter {kept.folder} was made for other weights of {kept.base}: {way_out}")
    elif kept.base and not same_base(kept.base, base.address):
        raise UserError(f"adapter {kept.folder} was made for {kept.base}, not for {base.address}: {way_out}")


def put_on(model: Any, folder: Path, method: Choice | None = None, seed: int = 0, any_base: bool = False) -> Adapted:
    """The trained model of a folder on its base, ready to answer; on meta tensors as it was when it was trained.

    `method`, `seed`: of the run that made it, for files that do not say. Raises `UserError` for a base that it does not
    fit.
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
        # Of Python's own mistakes the kind tells more than the text.
        known = isinstance(error, (RuntimeError, ValueError))
        raise _unfit(kept.folder, " ".join(str(error).split())[:300] if known else error_line(error)) from error


def _whole(model: Any, folder: Path, meta: bool) -> Adapted:
    """A fully trained model takes the place of its base."""
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
    """A model whose method has no format of its own: the method is applied again, and given its trained tensors."""
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
    """Raises `UserError` unless the tensors of a file are those that an adapted model has, by name and shape."""
    for name in [*asked, *there]:
        if asked.get(name) != there.get(name):
            raise _unfit(folder, f"{name} is {there.get(name, 'absent')} there, {asked.get(name, 'absent')} here")


def _unfit(folder: Path, why: str) -> UserError:
    return UserError(f"adapter {folder} does not fit this base model: {why}")
