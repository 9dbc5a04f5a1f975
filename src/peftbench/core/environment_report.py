"""What an installation is and what it lacks, to be pasted into a report of an error."""

import ctypes
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from peftbench import sandbox
from peftbench.core import provenance

NVML = "libnvidia-ml.so.1"
POWER = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of processors (RAPL)."""


@dataclass(frozen=True)
class Extra:
    """Something that peftbench can do without: what it is needed for, whether it is there, and how or why not."""

    name: str
    purpose: str
    available: bool
    detail: str


def installation_facts() -> dict[str, dict[str, Any]]:
    """The facts that every result of this process would have: machine, versions, code, settings."""
    return provenance.provenance_record()


def extras() -> tuple[Extra, ...]:
    """What is optional, and whether it can be used here."""
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
    """Whether the library of NVIDIA's driver is there and answers."""
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
