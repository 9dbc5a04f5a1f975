"""How fast a device is, how much it holds and draws: named ones by their data sheets, this machine as measured."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.core import device, provenance
from peftbench.core.cache_folder import cache_directory
from peftbench.core.registry import did_you_mean

if TYPE_CHECKING:
    from peftbench.profiling.dry_run import Counts

HERE = "here"
REACHED = {"flops": 0.4, "bandwidth": 0.7}
"""The share of what a data sheet says that training reaches, assumed for named devices."""
LAUNCH = 8e-6
"""Seconds until the next call is on its way to a GPU, assumed."""
TOUCHED = 3.0
"""Bytes moved for a byte of a result, which is written once and of which operands are read."""


@dataclass(frozen=True)
class Device:
    """Seconds for a call, a floating-point operation and a byte of a result; `None`: not known.

    `bf16`: whether it is good at bfloat16; `None`: a CPU, where that depends on the width of the model.
    `queued`: calls are made ahead of the work, as for a GPU, so that only the longer of the two takes time. `measured`:
    on this machine (`peftbench calibrate`), not from a data sheet. `watts` is the most that it draws.
    """

    name: str
    memory_bytes: int
    bf16: bool | None
    rates: tuple[float, float, float] | None
    queued: bool = False
    measured: bool = False
    watts: float | None = None
    source: str = ""

    def seconds(self, counts: "Counts") -> float | None:
        """How long so much work takes."""
        if self.rates is None:
            return None
        flop, call, byte = self.rates
        work, calls = counts.flops * flop + counts.written * byte, counts.calls * call
        return max(work, calls) if self.queued else work + calls


def find_device(name: str = HERE) -> Device:
    """A device by name, or this machine. Raises `UnknownNameError`."""
    if name == HERE:
        return here()
    if name not in known_devices():
        raise did_you_mean("device", name, [HERE, *known_devices()])
    return known_devices()[name]


@cache
def known_devices() -> Mapping[str, Device]:
    """The devices of `devices.toml`."""
    found = {}
    for name, facts in tomllib.loads((Path(__file__).parent / "devices.toml").read_text("utf-8")).items():
        rates = (
            1 / (facts["flops"] * REACHED["flops"]),
            LAUNCH,
            TOUCHED / (facts["bandwidth"] * REACHED["bandwidth"]),
        )
        found[name] = Device(
            name,
            int(facts["memory_bytes"]),
            facts.get("bf16", True),
            rates,
            queued=True,
            watts=facts["watts"],
            source=facts["source"],
        )
    return found


def here() -> Device:
    """This machine: what it holds; how fast it is once `peftbench calibrate` has measured it."""
    facts, path = provenance.machine_facts(), _file()
    gpus = facts["gpus"]
    rates = tuple(json.loads(path.read_text())["rates"]) if path.is_file() else None
    held = facts["gpu_memory_bytes"][0] if gpus else facts["memory_bytes"]
    bf16 = device.supports_bf16() if gpus else None
    return Device(provenance.machine_class(), held, bf16, rates, bool(gpus), measured=rates is not None)


def remember_speed(rates: tuple[float, float, float]) -> Path:
    """Remember how fast this machine is; where it is written."""
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps({"machine": provenance.machine_class(), "rates": rates}) + "\n")
    return path.with_suffix(".tmp").replace(path)


def _file() -> Path:
    return cache_directory() / f"calibration-{provenance.machine_class()}.json"
