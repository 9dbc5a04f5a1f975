"""Speed, memory and power of devices: from data sheets for named ones, measured for this machine."""

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
"""Assumed utilisation: the share of the data-sheet values that training reaches."""
LAUNCH = 8e-6
"""Assumed seconds to launch a GPU kernel."""
TOUCHED = 3.0
"""Bytes moved per byte of a result: one written, and about two of operands read."""


@dataclass(frozen=True)
class Device:
    """A device. `rates`: seconds per floating-point operation, call and byte of a result; `None`: unknown.

    `bf16`: whether bfloat16 is fast; `None`: a CPU, where it depends on the model width. `queued`: calls are
    asynchronous, as on a GPU, so only the longer of calls and work takes time. `measured`: by `peftbench calibrate`,
    not from a data sheet. `watts`: maximum power.
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
        """Return the seconds for this amount of work, or `None` if the rates are unknown."""
        if self.rates is None:
            return None
        flop, call, byte = self.rates
        work, calls = counts.flops * flop + counts.written * byte, counts.calls * call
        return max(work, calls) if self.queued else work + calls


def find_device(name: str = HERE) -> Device:
    """Return a device by name, or this machine. Raises `UnknownNameError`."""
    if name == HERE:
        return here()
    if name not in known_devices():
        raise did_you_mean("device", name, [HERE, *known_devices()])
    return known_devices()[name]


@cache
def known_devices() -> Mapping[str, Device]:
    """Return the devices of `devices.toml` by name."""
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
    """Return this machine, with rates if `peftbench calibrate` has measured them."""
    facts, path = provenance.machine_facts(), _file()
    gpus = facts["gpus"]
    rates = tuple(json.loads(path.read_text())["rates"]) if path.is_file() else None
    held = facts["gpu_memory_bytes"][0] if gpus else facts["memory_bytes"]
    bf16 = device.supports_bf16() if gpus else None
    return Device(provenance.machine_class(), held, bf16, rates, bool(gpus), measured=rates is not None)


def remember_speed(rates: tuple[float, float, float]) -> Path:
    """Write the rates of this machine to the cache; return the file."""
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps({"machine": provenance.machine_class(), "rates": rates}) + "\n")
    return path.with_suffix(".tmp").replace(path)


def _file() -> Path:
    return cache_directory() / f"calibration-{provenance.machine_class()}.json"
