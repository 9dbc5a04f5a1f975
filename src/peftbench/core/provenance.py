"""Provenance of a run: machine, versions, code and settings, on which its numbers depend besides its specification.

No value contains the name of a user, a folder or a host.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peftbench.core import device
from peftbench.core.machine_resources import memory_bytes
from peftbench.core.registry import PLUGIN

PACKAGES = (
    "peftbench torch transformers peft accelerate tokenizers datasets numpy safetensors scipy sacrebleu rouge-score "
    "bitsandbytes triton"
).split()
UNITS = ("peftbench.methods", "peftbench.tasks", "peftbench.metrics")
"""Groups of entry points through which other packages register units."""
VARIABLES = (
    "OMP_NUM_THREADS MKL_NUM_THREADS MKL_CBWR ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA "
    "CUBLAS_WORKSPACE_CONFIG NVIDIA_TF32_OVERRIDE PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF"
).split()
"""Environment variables that can change rounding or memory."""
SOURCE = (".py", ".toml", ".json")
DRIVER = Path("/proc/driver/nvidia/version")


def provenance_record() -> dict[str, dict[str, Any]]:
    """Return all facts of this module under their field names in a result."""
    return {"machine": machine_facts(), "versions": versions(), "code": code(), "settings": settings()}


@cache
def machine_facts() -> dict[str, Any]:
    """Return the processor, its instruction set, cores, memory in bytes, GPUs, driver and operating system."""
    import torch

    gpus = device.gpus()
    return _known(
        {
            "cpu": cpu_name(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "memory_bytes": memory_bytes(),
            "gpus": [gpu.name for gpu in gpus],
            "gpu_memory_bytes": [gpu.memory_bytes for gpu in gpus] or None,
            "driver": _driver() if gpus else None,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        }
    )


def machine_class() -> str:
    """Return the machine class, within which costs are compared: the GPU's name, or the CPU's name and core count."""
    known = machine_facts()
    name = known["gpus"][0] if known["gpus"] else f"{known['cpu']} {known['cores']} cores"
    return slug(name)


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that affect results, including those that register units."""
    return {name: package.version for name, package in _packages()}


@cache
def code() -> dict[str, dict[str, Any]]:
    """Return details of the code that a version number does not identify, by package.

    Packages from a checkout or a version control system have `commit`; those from a checkout also have `dirty`, True if
    tracked files have changes. peftbench and plugin files have `source`, twelve hexadecimal digits of their content.
    Call it early: a process runs the code it has loaded, even if the files change later.
    """
    found = {name: _origin(name, package) for name, package in _packages()}
    for name, digest in source_digests().items():
        found[name] = found.get(name, {}) | {"source": digest}
    return {name: known for name, known in found.items() if known}


def source_digests() -> dict[str, str]:
    """Return twelve hexadecimal digits of the content of peftbench's own source, and of each plugin file."""
    digests = {"peftbench": _own_digest()}
    for name, module in sorted(sys.modules.items()):
        if name.startswith(PLUGIN) and module.__file__:
            digests[Path(module.__file__).name] = _digest([("", Path(module.__file__))])
    return digests


@cache
def _own_digest() -> str:
    here = Path(__file__).parents[1]
    files = (path for path in sorted(here.rglob("*")) if path.suffix in SOURCE)
    return _digest((path.relative_to(here).as_posix(), path) for path in files)


def settings() -> dict[str, Any]:
    """Return the settings of this process: threads, determinism, precision of products, environment variables."""
    import torch

    backends: Any = torch.backends
    return _known(
        {
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": backends.cudnn.deterministic,
            "cudnn_benchmark": backends.cudnn.benchmark,
            # They reflect the older switches (allow_tf32), which torch refuses to read once these are set.
            "cuda_matmul_fp32_precision": backends.cuda.matmul.fp32_precision,
            "cudnn_conv_fp32_precision": backends.cudnn.conv.fp32_precision,
            "mkldnn_matmul_fp32_precision": backends.mkldnn.matmul.fp32_precision,
        }
        | {name: os.environ.get(name) for name in VARIABLES}
    )


def slug(name: str) -> str:
    """Return a name as a valid part of a path."""
    return re.sub(r"[^A-Za-z0-9.+=_-]+", "-", name).strip("-.") or "unnamed"


def _known(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _packages() -> Iterator[tuple[str, Distribution]]:
    outside = {point.dist.name for group in UNITS for point in entry_points(group=group) if point.dist}
    for name in dict.fromkeys([*PACKAGES, *sorted(outside)]):
        try:
            yield name, distribution(name)
        except PackageNotFoundError:
            continue


def _origin(name: str, package: Distribution) -> dict[str, Any]:
    """Return the commit of the checkout that a package is imported from, else that it was installed from."""
    spec = find_spec(name.replace("-", "_"))
    if spec is not None and spec.origin and not _installed(Path(spec.origin)):
        return _checkout(Path(spec.origin).parent)
    commit = json.loads(package.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id")
    return {"commit": commit} if commit else {}


def _installed(file: Path) -> bool:
    return any(part in ("site-packages", "dist-packages") for part in file.parts)


def _checkout(folder: Path) -> dict[str, Any]:
    # A folder that git ignores within a checkout has no commit.
    if not any((parent / ".git").exists() for parent in folder.parents) or not _git(folder, "ls-files", "."):
        return {}
    commit = _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return {"commit": commit.removesuffix("-dirty"), "dirty": commit.endswith("-dirty")} if commit else {}


def _git(folder: Path, *words: str) -> str:
    """Return the output of a read-only git command in a folder; empty if git fails or is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],  # noqa: S607 (git may be installed anywhere)
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _digest(files: Iterator[tuple[str, Path]] | list[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        content = path.read_bytes()
        digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()[:12]


def _driver() -> str | None:
    """Return the version of NVIDIA's driver as reported by the kernel."""
    try:
        found = re.search(r"\s(\d+(?:\.\d+)+)\s", DRIVER.read_text())
    except OSError:
        return None
    return found[1] if found else None


def cpu_name() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = re.findall(r"model name\s*: (.+)", info.read_text())
        if names:
            return str(names[0])
    return platform.processor() or platform.machine()
