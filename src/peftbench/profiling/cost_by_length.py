"""Costs of a method on a model as a function of row length, from the configuration alone."""

import contextlib
import copy
import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import astuple, dataclass, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.overrides import TorchFunctionMode

from peftbench.core.cache_folder import cache_directory
from peftbench.core.files import read_bytes, write_atomically
from peftbench.core.provenance import source_digests
from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.engine.merging import is_possible
from peftbench.engine.peak_memory import Memory
from peftbench.engine.precision import computes_in_bf16
from peftbench.engine.quantization import packed_bytes
from peftbench.engine.train import trained_in_float32
from peftbench.methods import METHODS, Adapted, given
from peftbench.methods._model_compatibility import base_quantisation, check_possible
from peftbench.models import at
from peftbench.profiling.dry_run import FUSED, SHORT, Autocast, BatchShape, Counts, Rehearsal, fused, glance, rehearse
from peftbench.profiling.parameters_and_flops import configuration, on_meta, rebuilt

LARGE = 1e9
"""Parameters from which two rehearsals are enough: the quadratic terms and the head are at most about 2 %."""


@dataclass(frozen=True)
class Profile:
    """Costs of a method on a model. `rehearsals` has one per shape; it is empty if nothing is trained.

    `virtual_tokens` precede the input; in an encoder–decoder a `soft_prompt` precedes the encoder's input. `forward`
    is one pass of one row of 512 tokens; `extra_forward_flops_512` is 0 if the method can be merged.
    """

    trainable_parameters: int
    total_parameters: int
    weight_bytes: int
    adapter_bytes: int
    forward: Counts
    extra_forward_flops_512: int
    shapes: tuple[BatchShape, ...]
    rehearsals: tuple[Rehearsal, ...]
    virtual_tokens: int = 0
    soft_prompt: bool = False

    def at(self, shape: BatchShape) -> Rehearsal:
        """Return the costs of a step on rows of a shape: exact for rehearsed shapes, else from a least-squares fit.

        Terms of the fit: constant, length, target tokens, squared length; only as many as there are rehearsals.
        """
        if shape in self.shapes:
            return self.rehearsals[self.shapes.index(shape)]
        return _rehearsal(_powers(shape, len(self.shapes)) @ self._fit)

    @cached_property
    def _fit(self) -> "np.ndarray[Any, Any]":
        """Coefficients [terms, numbers of a rehearsal]."""
        places = np.array([_powers(each, len(self.shapes)) for each in self.shapes])
        values = np.array([_numbers(each) for each in self.rehearsals])
        found: np.ndarray[Any, Any] = np.linalg.lstsq(places, values, rcond=None)[0]
        return found


def _powers(shape: BatchShape, known: int) -> "np.ndarray[Any, Any]":
    # Values near 1 keep the least-norm solution meaningful if shapes are similar.
    length, target = sum(shape) / 512, shape[1] / 512
    return np.array([1.0, length, target, length**2][: max(known, 1)])


def _numbers(found: Rehearsal) -> list[float]:
    return [*astuple(found.passes), *astuple(found.update), *found.counts]


def _rehearsal(numbers: "np.ndarray[Any, Any]") -> Rehearsal:
    whole = [max(0, round(float(number))) for number in numbers]
    return Rehearsal(Memory(*whole[:4]), Memory(*whole[4:8]), Counts(*whole[8:]))


def points(shapes: Sequence[BatchShape], parameters: int) -> tuple[BatchShape, ...]:
    """Return the shapes to rehearse: all if they are few, else the extremes and, for small models, a middle."""
    several = sorted(set(shapes))
    if len(several) <= (2 if parameters >= LARGE else 4):
        return tuple(several)
    lengths, targets = ([f(each) for each in several] for f in (sum, lambda shape: shape[1]))
    short, long, few, many = min(lengths), max(lengths), min(targets), max(targets)
    wordy = (long, max(few, min(many, long - 1)))
    chosen = [(short, few), wordy]
    if parameters < LARGE:
        chosen += [(long, few), ((short + long) // 2, few)]
    return tuple(dict.fromkeys((max(1, length - target), target) for length, target in chosen))


def profile(spec: RunSpec, shapes: Sequence[BatchShape], bf16: bool | None = None) -> Profile:
    """Return the profile of a run's model, method and training settings, from the cache if it is there.

    `bf16`: whether the device is fast in bfloat16; `None` for a CPU. Raises `UserError` if the run will be refused, and
    any error of a method that needs real weights.
    """
    with warnings.catch_warnings():
        # Libraries warn about their own internal calls.
        warnings.simplefilter("ignore")
        config = fused(configuration(at(spec.model.name, spec.model.version)))
        path = _kept_at(spec, config, shapes, bf16)
        with contextlib.suppress(OSError, ValueError):
            return PROFILE.validate_json(read_bytes(path))
        found = _profile(spec, config, shapes, bf16)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, PROFILE.dump_json(found))
        return found


def _kept_at(spec: RunSpec, config: Any, shapes: Sequence[BatchShape], bf16: bool | None) -> Path:
    """Return the cache file of a profile; its name is a digest of everything that the profile depends on."""
    asked = [config.to_json_string(use_diff=False), spec.method.model_dump_json(), spec.train.model_dump_json()]
    of_model = {"model": spec.model.model_dump_json()}
    libraries = {name: version(name) for name in ("torch", "transformers", "peft")}
    low = _low_precision(spec, config, bf16)
    text = json.dumps([asked, of_model, libraries, source_digests(), sorted(set(shapes)), low, bf16 is None])
    return cache_directory() / "profiles" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _profile(spec: RunSpec, config: Any, shapes: Sequence[BatchShape], bf16: bool | None) -> Profile:
    method = METHODS[spec.method.name]
    packing = base_quantisation(spec)
    check_possible(method, spec, packing is not None)
    low = _low_precision(spec, config, bf16)
    if low and bf16 is None and config._attn_implementation == FUSED:
        config = copy.deepcopy(config)
        config._attn_implementation = SHORT
    dtype = torch.bfloat16 if low else torch.float32
    adapted = on_meta(config, spec.method.name, given(spec.method), dtype)
    trained = trained_in_float32(adapted.model)
    if method.facts.trains and not trained:
        raise UserError(f"method {spec.method} has nothing to train on this model")
    total = sum(p.numel() for p in adapted.model.parameters())
    forward = glance(adapted)
    # Packed weights cannot represent the merged weights.
    merges = packing is None and is_possible(adapted)
    adapter_bytes = saved_bytes(adapted) if trained else 0
    if spec.train.gradient_checkpointing:
        # The recomputation does not run under the caller's modes.
        again = {"context_fn": lambda: (nullcontext(), Autocast())} if low else {}
        adapted.network.gradient_checkpointing_enable({"use_reentrant": False, **again})
    chosen = points(shapes, total) if trained else ()
    saved = packed_bytes(on_meta(config, "none", {}, dtype).network, packing) if packing else 0
    rehearsals = [_lighter(found, saved) for found in rehearse(adapted, spec.train, chosen, low)]
    return Profile(
        sum(p.numel() for p in trained),
        total,
        sum(p.numel() * p.element_size() for p in adapted.model.parameters()) - saved,
        adapter_bytes,
        forward,
        0 if merges else forward.flops - untouched(config, dtype).flops,
        chosen,
        tuple(rehearsals),
        adapted.virtual_tokens,
        adapted.soft_prompt is not None,
    )


PROFILE = TypeAdapter(Profile)


def untouched(config: Any, dtype: torch.dtype) -> Counts:
    """Return the counts of a forward pass of the model without a method."""
    return _untouched(config.to_json_string(use_diff=False), dtype)


@lru_cache(maxsize=16)
def _untouched(config_json: str, dtype: torch.dtype) -> Counts:
    return glance(on_meta(fused(rebuilt(config_json)), "none", {}, dtype))


def _low_precision(spec: RunSpec, config: Any, bf16: bool | None) -> bool:
    if spec.train.precision != "auto":
        return spec.train.precision == "bf16"
    return computes_in_bf16(config) if bf16 is None else bf16


def _lighter(found: Rehearsal, saved: int) -> Rehearsal:
    passes, update = (replace(part, weights=part.weights - saved) for part in (found.passes, found.update))
    return Rehearsal(passes, update, found.counts)


def saved_bytes(adapted: Adapted) -> int:
    """Return the bytes of the safetensors file of a trained model: a JSON header, then the tensors."""
    tensors = kept_tensors(adapted)
    # `transformers` and `peft` write this entry.
    header: dict[str, Any] = {} if adapted.save is None else {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = len(json.dumps(header, separators=(",", ":")))
    return 8 + math.ceil(text / 8) * 8 + end


def kept_tensors(adapted: Adapted) -> dict[str, Tensor]:
    """Return the tensors of an adapted model that are saved."""
    from peft import PeftModel, get_peft_model_state_dict

    if isinstance(adapted.model, PeftModel):
        with _IgnoreCpu():
            return dict(get_peft_model_state_dict(adapted.model))
    if adapted.save is not None:
        # The whole model; tied tensors are listed once.
        return dict(adapted.model.named_parameters())
    return {name: p for name, p in adapted.model.named_parameters() if p.requires_grad}


class _IgnoreCpu(TorchFunctionMode):
    """Ignores `Tensor.cpu`, which `peft` calls on a trained prompt and which fails on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.cpu else func(*args, **(kwargs or {}))
