"""Facts about an installation and its optional parts, for bug reports."""

import ctypes
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from peftbench import sandbox
from peftbench.core import provenance

NVML = "libnvidia-ml.so.1"
POWER = Path("/sys/class/powercap")
"""The folder of the processors' energy counters (RAPL) on Linux."""


@dataclass(frozen=True)
class Extra:
    """An optional dependency: its purpose, whether it is available, and its version or the reason."""

    name: str
    purpose: str
    available: bool
    detail: str


def installation_facts() -> dict[str, dict[str, Any]]:
    """Return the facts recorded in each result of this process: machine, versions, code, settings."""
    return provenance.provenance_record()


def extras() -> tuple[Extra, ...]:
    """Return the optional dependencies and whether each is available."""
    return (
        Extra("bitsandbytes", "quantised bases", *_bitsandbytes()),
        Extra("sandbox", "running programs (pass_at_1)", *_sandbox()),
        Extra("NVML", "energy of a GPU", *_nvml()),
        Extra("RAPL", "energy of a processor", *_rapl()),
    )


def _bitsandbytes() -> tuple[bool, str]:
    try:
        return True, version("bitsandbytes")
    except PackageNotFoundError:
        return False, "missing: pip install 'peftbench[quantised]'"


def _sandbox() -> tuple[bool, str]:
    try:
        return True, sandbox.mode()
    except sandbox.NotContainedError as refusal:
        return False, str(refusal)


def _nvml() -> tuple[bool, str]:
    """Return whether the library of NVIDIA's driver can be initialised, and a detail."""
    try:
        library = ctypes.CDLL(NVML)
    except OSError:
        return False, f"missing: no {NVML}, which comes with NVIDIA's driver"
    if code := library.nvmlInit_v2():
        return False, f"{NVML} does not start: error {code}"
    library.nvmlShutdown()
    return True, "readable"


def _rapl() -> tuple[bool, str]:
    counters = sorted(POWER.glob("*/energy_uj"))
    if not counters:
        return False, f"missing: no counter in {POWER}"
    try:
        counters[0].read_text()
    except OSError as error:
        return False, f"not readable: {counters[0]}: {error.strerror}; an administrator can allow it"
    return True, "readable"
