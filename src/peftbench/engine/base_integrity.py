"""Proof that a run left the base model and its process unchanged, on which the next run depends.

A model is compared by its tensors, bit for bit, and by all that its modules hold beside them. What was done to classes,
functions and settings cannot be undone by loading a model anew: such a process is not used again.
"""

import gc
import hashlib
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as torch_modules
from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils.generic import GeneralInterface

from peftbench.engine.quantization import quantization_constants

CHUNK = 1 << 22
"""Elements per step of a digest, so that it needs little additional memory."""
CHECKPOINTING = {
    *("gradient_checkpointing", "_gradient_checkpointing_func"),
    *("_require_grads_hook", "_require_grads_hooks"),
}
"""Attributes that gradient checkpointing leaves behind when it is switched off."""
MODULE_FIELDS = frozenset(vars(torch.nn.Module())) | CHECKPOINTING
"""Attributes that are not compared as plain ones: parameters, submodules and hooks are compared separately."""
HOOKS = tuple(sorted(name for name in vars(torch.nn.Module()) if name.endswith("hooks")))
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
LIBRARIES = ("peftbench", "torch", "transformers", "accelerate", "peft", "tokenizers", "safetensors", "numpy")
STANDARD = ("builtins", "json", "math", "os", "os.path", "pathlib", "random", "statistics", "time")
"""Modules whose functions and classes must not change; of libraries, with all submodules."""
VARIABLES = ("CUDA", "HF_", "MKL_", "OMP_", "PEFTBENCH_", "TORCH")
"""Prefixes of environment variables that must not be added."""
CODE = (FunctionType, BuiltinFunctionType, staticmethod, classmethod, property, type)


class ModelState:
    """The state of a model without gradients; `changed` lists what differs from it."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.tensors, self.rest = _tensors(model), _rest(model)

    def changed(self, model: torch.nn.Module) -> list[str]:
        """Return the names of tensors, attributes, hooks and settings that were changed, added or removed."""
        return [*_differences(self.tensors, _tensors(model)), *_differences(self.rest, _rest(model))]


class ProcessState:
    """The state of a process at the time of `see`: code of its libraries, settings of torch and of the process."""

    def __init__(self) -> None:
        self.code: dict[str, tuple[Mapping[str, Any], dict[str, Any]]] = {}
        self._seen: set[str] = set()
        self.channels = _channels()
        self.see()

    def see(self) -> None:
        """Record the current state, with newly imported modules: libraries are imported on first use."""
        self.settings, self.environment = _settings(), dict(os.environ)
        # Those of libraries, which open them later, may come and go.
        self.channels &= _channels()
        for space, before in self.code.values():
            before.update({key: space.get(key) for key, value in before.items() if space.get(key) is not value})
        for name in [name for name in sys.modules if name not in self._seen]:
            self._seen.add(name)
            if name in STANDARD or name.partition(".")[0] in LIBRARIES:
                for called, space in _namespaces(name, sys.modules[name]):
                    self.code[called] = space, _functions(space)

    def changed(self) -> list[str]:
        """Return what has changed since `see`: functions, classes, settings, environment variables, channels."""
        code = [
            f"{name}.{key}"
            for name, (space, before) in self.code.items()
            for key, value in before.items()
            if space.get(key) is not value
        ]
        variables = [
            f"environment variable {name}"
            for name in {**self.environment, **os.environ}
            if self.environment.get(name) != os.environ.get(name)
            if name in self.environment or name.startswith(VARIABLES)
        ]
        closed = ["closed files"] if self.channels - _channels() else []
        return [*code, *_differences(self.settings, _settings()), *variables, *closed]


def listed(names: list[str], most: int = 3) -> str:
    """Return some of the changed names as text, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def tensor_digest(tensor: Tensor) -> str:
    """Return a text that covers type, shape and bits of a tensor."""
    if tensor.is_meta or tensor.layout != torch.strided:
        return f"{tensor.dtype}:{tuple(tensor.shape)}:{tensor.layout}"
    bits = torch.hash_tensor(tensor).view(torch.int64).item() if tensor.numel() else 0
    return f"{tensor.dtype}:{tuple(tensor.shape)}:{bits}:{_weighted_sum(tensor)}"


def model_checksum(model: torch.nn.Module) -> str:
    """Return sixteen hexadecimal digits over the modules, hooks and tensors (every bit) of a model."""
    found = hashlib.sha256()
    for name, module in model.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        found.update(f"{name}:{type(module).__name__}:{hooks};".encode())
    for name, tensor in model.state_dict().items():
        found.update(f"{name}:{tensor_digest(tensor)};".encode())
    return found.hexdigest()[:16]


def _weighted_sum(tensor: Tensor) -> int:
    """Return the sum of a tensor's bits as integers, each times its position, modulo 2**64.

    `torch.hash_tensor` is an exclusive or, which does not see two equal changes, nor two values that change places.
    """
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}[tensor.element_size()]
    flat = tensor.detach().contiguous().flatten().view(whole)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for number, chunk in enumerate(flat.split(CHUNK)):
        places = torch.arange(1, len(chunk) + 1, device=tensor.device) + number * CHUNK
        total += (chunk.long() * (2 * places + 1)).sum()
    return int(total.item())


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    gone = object()
    return [name for name in {**before, **after} if before.get(name, gone) != after.get(name, gone)]


def _tensors(model: torch.nn.Module) -> dict[str, str]:
    """Return digests of parameters, all buffers (also unsaved ones), and the constants of quantised layers."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    beside = {f"constant {number}": tensor for number, tensor in enumerate(quantization_constants(model))}
    return {name: tensor_digest(tensor) for name, tensor in {**named, **beside}.items()}


def _rest(model: Any) -> dict[str, Any]:
    """Return types, hooks and plain attributes of all modules, and the configurations."""
    found: dict[str, Any] = {}
    met: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        hooks = [getattr(parameter, kind, None) or {} for kind in TENSOR_HOOKS]
        found[f"{name}: hooks"] = [tuple(each.values()) for each in hooks]
    for name, module in model.named_modules():
        found[f"{name}: type"] = type(module).__name__
        found[f"{name}: hooks"] = [tuple(vars(module).get(kind, {}).values()) for kind in HOOKS]
        for key, value in vars(module).items():
            if key not in MODULE_FIELDS:
                found[f"{name}.{key}".lstrip(".")] = _frozen(value, met)
    return found


def _frozen(value: Any, met: dict[int, Any], depth: int = 4) -> Any:
    """Return an immutable, comparable form of a value. Objects that occur again get the same form."""
    if isinstance(value, Tensor):
        return tensor_digest(value)
    if isinstance(value, (str, int, float, bool, type(None), torch.nn.Module, *CODE)) or not depth:
        return value
    if id(value) not in met:
        met[id(value)] = None
        met[id(value)] = _content(value, met, depth - 1)
    return met[id(value)]


def _content(value: Any, met: dict[int, Any], depth: int) -> Any:
    if isinstance(value, Mapping):
        return type(value), {key: _frozen(each, met, depth) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [_frozen(each, met, depth) for each in value]
    if isinstance(value, (PreTrainedConfig, GenerationConfig)) or type(value).__module__.startswith("transformers."):
        # Saving a model writes the type of its weights into its configuration, as a text.
        held = getattr(value, "__dict__", {})
        return type(value), {key: _frozen(each, met, depth) for key, each in held.items() if key != "dtype"}
    return value


def _namespaces(name: str, module: ModuleType) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a module, its classes, and its tables of functions (such as registries of attention functions)."""
    yield name, vars(module)
    for key, value in list(vars(module).items()):
        if isinstance(value, type) and value.__module__ == name:
            yield f"{name}.{key}", vars(value)
        elif name.startswith(("transformers.", "peft.")) and isinstance(value, (dict, GeneralInterface)):
            yield f"{name}.{key}", value


def _functions(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the functions and classes of a namespace or table."""
    # As they are held: a table may make something new of what it holds whenever it is asked.
    items = dict.items(space) if isinstance(space, dict) else space.items()
    return {key: value for key, value in items if isinstance(value, CODE)}


def _settings() -> dict[str, Any]:
    """Return the settings of torch and of the process on which results or the next run depend."""
    found: dict[str, Any] = {
        "torch default type": torch.get_default_dtype(),
        "torch default device": torch.get_default_device(),
        "torch threads": torch.get_num_threads(),
        "torch gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch anomaly detection": torch.is_anomaly_enabled(),
        "torch deterministic algorithms": torch.get_deterministic_debug_mode(),
        "torch matmul precision": torch.get_float32_matmul_precision(),
        "torch autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "torch modes": (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
        "torch kernels": _kernels(),
        "hooks of all modules": [tuple(hooks.values()) for hooks in _global_hooks()],
        "working directory": _working_directory(),
        "garbage collection": gc.isenabled(),
        "recursion limit": sys.getrecursionlimit(),
        "standard output": (sys.stdout, sys.stderr),
        "signals": tuple(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
    }
    return found


def _kernels() -> list[bool]:
    backends = torch.backends
    flags = (backends.mkldnn, backends.cudnn, backends.cuda)
    known = ("enabled", "benchmark", "deterministic", "allow_tf32")
    switched = [getattr(flag, name, None) for flag in flags for name in known]
    chosen = [backends.cuda.flash_sdp_enabled(), backends.cuda.math_sdp_enabled()]
    return [value for value in [*switched, *chosen] if isinstance(value, bool)]


def _global_hooks() -> Iterator[Mapping[int, Any]]:
    for name, value in vars(torch_modules).items():
        if name.startswith("_global_") and name.endswith("hooks") and isinstance(value, dict):
            yield value


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def _channels() -> set[int]:
    """Return the open pipes and sockets of the process."""
    found = set()
    for number in range(256):
        with suppress(OSError):
            if stat.S_ISSOCK(mode := os.fstat(number).st_mode) or stat.S_ISFIFO(mode):
                found.add(number)
    return found
