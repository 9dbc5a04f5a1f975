"""What machine and which versions a run had."""

import os
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("peftbench", "torch", "transformers", "peft", "accelerate", "tokenizers", "datasets", "numpy")


@cache
def facts() -> dict[str, Any]:
    """Processor, cores, memory in bytes, GPU and operating system."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def machine_class() -> str:
    """Machines of one class may be compared by cost: the GPU's name, else the processor's with its number of cores."""
    known = facts()
    name = known["gpus"][0] if known["gpus"] else f"{known['cpu']} {known['cores']} cores"
    return slug(name)


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def slug(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^A-Za-z0-9.+=_-]+", "-", name).strip("-.") or "unnamed"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = re.findall(r"model name\s*: (.+)", info.read_text())
        if names:
            return str(names[0])
    return platform.processor() or platform.machine()
