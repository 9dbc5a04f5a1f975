"""What machine, which code and which settings a run had: all that its numbers depend on beside what was asked.

Nothing here names a user, a folder or a host.
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
"""Groups of entry points by which other packages offer units."""
VARIABLES = (
    "OMP_NUM_THREADS MKL_NUM_THREADS MKL_CBWR ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA "
    "CUBLAS_WORKSPACE_CONFIG NVIDIA_TF32_OVERRIDE PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF"
).split()
"""Variables of the environment that change last digits or memory."""
SOURCE = (".py", ".toml", ".json")
DRIVER = Path("/proc/driver/nvidia/version")


def provenance_record() -> dict[str, dict[str, Any]]:
    """Everything of this module, by the names it has in a result."""
    return {"machine": machine_facts(), "versions": versions(), "code": code(), "settings": settings()}


@cache
def machine_facts() -> dict[str, Any]:
    """Processor and its instructions in use, cores, memory in bytes, GPUs with theirs, driver, operating system."""
    import torch

    gpus = device.gpus()
    return _known(
        {
            "cpu": _cpu_name(),
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
    """Machines of one class may be compared by cost: the GPU's name, else the processor's with its number of cores."""
    known = machine_facts()
    name = known["gpus"][0] if known["gpus"] else f"{known['cpu']} {known['cores']} cores"
    return slug(name)


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, those that offer units among them."""
    return {name: found.version for name, found in _packages()}


@cache
def code() -> dict[str, dict[str, Any]]:
    """What a version does not tell. Read it before anything can change, as a process runs the code it began with.

    By package, for those from a checkout or a version control system: `commit`, and for a checkout `dirty`, whether
    files that git follows have changes. `source` of peftbench itself and of plugin files: twelve hexadecimal digits of
    their content.
    """
    found = {name: _origin(name, package) for name, package in _packages()}
    for name, digest in source_digests().items():
        found[name] = found.get(name, {}) | {"source": digest}
    return {name: known for name, known in found.items() if known}


def source_digests() -> dict[str, str]:
    """Twelve hexadecimal digits of the content of peftbench's own source, and of each plugin file."""
    found = {"peftbench": _own_digest()}
    for name, module in sorted(sys.modules.items()):
        if name.startswith(PLUGIN) and module.__file__:
            found[Path(module.__file__).name] = _digest([("", Path(module.__file__))])
    return found


@cache
def _own_digest() -> str:
    here = Path(__file__).parents[1]
    files = (path for path in sorted(here.rglob("*")) if path.suffix in SOURCE)
    return _digest((path.relative_to(here).as_posix(), path) for path in files)


def settings() -> dict[str, Any]:
    """What this process is set to: threads, what must be deterministic, precision of sums of products, variables."""
    import torch

    backends: Any = torch.backends
    return _known(
        {
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": backends.cudnn.deterministic,
            "cudnn_benchmark": backends.cudnn.benchmark,
            # They follow the older switches (allow_tf32), which cannot be read where these have been set.
            "cuda_matmul_fp32_precision": backends.cuda.matmul.fp32_precision,
            "cudnn_conv_fp32_precision": backends.cudnn.conv.fp32_precision,
            "mkldnn_matmul_fp32_precision": backends.mkldnn.matmul.fp32_precision,
        }
        | {name: os.environ.get(name) for name in VARIABLES}
    )


def slug(name: str) -> str:
    """A name as part of a path."""
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
    """Commit of the checkout that a package is imported from, else of the one it was installed from."""
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
    said = _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return {"commit": said.removesuffix("-dirty"), "dirty": said.endswith("-dirty")} if said else {}


def _git(folder: Path, *words: str) -> str:
    """What git says of a folder, which it leaves as it is; nothing where it cannot be asked."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],  # noqa: S607 (wherever it is installed)
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
    """The version of NVIDIA's driver, as the kernel tells it."""
    try:
        found = re.search(r"\s(\d+(?:\.\d+)+)\s", DRIVER.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = re.findall(r"model name\s*: (.+)", info.read_text())
        if names:
            return str(names[0])
    return platform.processor() or platform.machine()
