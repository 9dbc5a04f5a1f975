"""Joules of phases, from a counter of the machine where one can be read; else none, and nothing is estimated.

With a GPU it is NVML's counter of that GPU (`pip install 'peftbench[energy]'`), else Linux RAPL's of the processor
packages, which since Linux 5.10 may be read by root alone.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

from peftbench.core import device

POWERCAP = Path("/sys/class/powercap")
POLL_SECONDS = 60.0
"""A counter of RAPL comes round in some minutes at the highest power, and must be read in between."""

EnergySource = Literal["nvml", "rapl"]


class EnergyCounter(Protocol):
    """Counts joules from some time on, and never down. Raises `OSError` if it cannot be read."""

    @property
    def source(self) -> EnergySource: ...
    def joules(self) -> float: ...


class Rapl:
    """The energy of all processor packages of the machine. Raises `OSError` where there are none to be read.

    Memory and other subdomains of a package are not added, as some of them are part of it.
    """

    source: EnergySource = "rapl"

    def __init__(self, root: Path = POWERCAP) -> None:
        domains = [folder for folder in sorted(root.glob("intel-rapl:*")) if _is_package(folder)]
        if not domains:
            raise FileNotFoundError(f"no packages in {root}")
        self._ranges = {folder: _number(folder / "max_energy_range_uj") for folder in domains}
        self._last = {folder: _number(folder / "energy_uj") for folder in domains}
        self._total, self._lock = 0, threading.Lock()

    def joules(self) -> float:
        """Since this was made. It must be called at least once in each round of a counter."""
        with self._lock:
            for folder, limit in self._ranges.items():
                now = _number(folder / "energy_uj")
                gone = now - self._last[folder]
                # It begins at zero again after its range.
                self._total += gone if gone >= 0 else gone + limit
                self._last[folder] = now
            return self._total / 1e6


def _is_package(folder: Path) -> bool:
    return (folder / "name").read_text().startswith("package")


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except ValueError as error:
        raise OSError(f"{path} holds no number") from error


class Nvml:
    """The energy of the GPU in use, from Volta on. Raises `OSError` or `ImportError` where it is not available."""

    source: EnergySource = "nvml"

    def __init__(self) -> None:
        import pynvml

        self._nvml = pynvml
        # Not by number: CUDA counts the visible ones alone.
        uuid = device.gpu_uuid()
        self._of(pynvml.nvmlInit)
        self._gpu = self._of(pynvml.nvmlDeviceGetHandleByUUID, uuid)

    def joules(self) -> float:
        """Since the driver was loaded."""
        return float(self._of(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._gpu)) / 1e3

    def _of(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except self._nvml.NVMLError as error:
            raise OSError(str(error)) from error


@cache
def counter() -> EnergyCounter | None:
    """The counter of this process's device, if there is one that can be read."""
    try:
        found: EnergyCounter = Nvml() if device.has_gpu() else Rapl()
        found.joules()
    except (ImportError, OSError):
        return None
    if isinstance(found, Rapl):
        threading.Thread(target=_poll, args=(found,), daemon=True).start()
    return found


def _poll(rapl: Rapl) -> None:
    pause = threading.Event()
    while not pause.wait(POLL_SECONDS):
        try:
            rapl.joules()
        except OSError:
            return


class Energy:
    """Joules of named phases. A phase in which the counter could once not be read has none."""

    def __init__(self, counted_by: EnergyCounter | None) -> None:
        self.counter = counted_by
        self._joules: dict[str, float | None] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the energy within to a phase."""
        before = self._read()
        try:
            yield
        finally:
            after, so_far = self._read(), self._joules.get(name, 0.0)
            if before is None or after is None or so_far is None:
                self._joules[name] = None
            else:
                self._joules[name] = so_far + after - before

    def joules(self, name: str) -> float | None:
        """What a phase took; none if it was not measured, or never was."""
        return self._joules.get(name)

    def costs(self) -> dict[str, Any]:
        """The fields of `Costs` about energy."""
        found = {f"{phase}_energy_joules": self.joules(phase) for phase in ("train", "eval")}
        known = self.counter is not None and any(joules is not None for joules in found.values())
        return {**found, "energy_source": self.counter.source if known and self.counter else None}

    def _read(self) -> float | None:
        try:
            return None if self.counter is None else self.counter.joules()
        except OSError:
            return None
