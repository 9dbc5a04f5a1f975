"""Energy of phases, from a made-up folder of powercap and a made-up library of NVML."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from peftbench.engine import energy
from peftbench.engine.energy import Energy, Nvml, Rapl
from peftbench.engine.phase_meter import Meter

LIMIT = 1_000_000


def domain(root: Path, number: str, name: str, microjoules: int) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{LIMIT}\n")
    put(folder, microjoules)
    return folder


def put(folder: Path, microjoules: int) -> None:
    (folder / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def packages(tmp_path: Path) -> list[Path]:
    """Two packages; and what is part of one, or holds them, and must not be counted again."""
    domain(tmp_path, "0:0", "core", 10)
    domain(tmp_path, "2", "psys", 10)
    return [domain(tmp_path, "0", "package-0", 100), domain(tmp_path, "1", "package-1", 900_000)]


def test_packages_are_summed_and_come_round(packages: list[Path], tmp_path: Path) -> None:
    rapl = Rapl(tmp_path)
    assert rapl.joules() == 0
    put(packages[0], 500_100)
    put(packages[1], 100_000)
    assert rapl.joules() == pytest.approx(0.5 + 0.2), "the second began again at zero"
    put(packages[1], 50_000)
    assert rapl.joules() == pytest.approx(0.5 + 0.2 + 0.95), "and once more, as it was read in between"


def test_phases_are_kept_apart(packages: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl = Rapl(tmp_path)
    monkeypatch.setattr("peftbench.engine.phase_meter.counter", lambda: rapl)
    meter = Meter()
    for microjoules in (300_000, 700_000):
        with meter.phase("train"):
            put(packages[0], microjoules)
        put(packages[0], microjoules + 50_000)
    with meter.phase("eval"):
        put(packages[0], 850_000)
    assert meter.energy.joules("train") == pytest.approx(0.2999 + 0.35)
    assert meter.energy.costs() == {
        "train_energy_joules": pytest.approx(0.6499),
        "eval_energy_joules": pytest.approx(0.1),
        "energy_source": "rapl",
    }


def test_one_reading_that_fails_makes_the_phase_unknown_for_good(packages: list[Path], tmp_path: Path) -> None:
    measured = Energy(Rapl(tmp_path))
    with measured.phase("train"):
        (packages[1] / "energy_uj").write_text("nothing\n")
    put(packages[1], 950_000)
    for phase in ("train", "eval"):
        with measured.phase(phase):
            put(packages[1], 960_000)
    found = measured.costs()
    assert found["train_energy_joules"] is None
    assert found["eval_energy_joules"] == 0
    assert found["energy_source"] == "rapl"


def test_what_cannot_be_read_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder; none of a package; a counter that only root may read."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(energy, "Rapl", lambda: Rapl(tmp_path / "powercap"))

    def found() -> Any:
        energy.counter.cache_clear()
        return energy.counter()

    assert found() is None
    (tmp_path / "powercap").mkdir()
    domain(tmp_path / "powercap", "0", "psys", 1)
    assert found() is None
    package = domain(tmp_path / "powercap", "1", "package-0", 1)
    read = Path.read_text

    def forbidden(path: Path, *args: Any, **more: Any) -> str:
        if path == package / "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert found() is None
    energy.counter.cache_clear()
    nothing = Energy(None)
    with nothing.phase("train"):
        pass
    assert set(nothing.costs().values()) == {None}


def test_the_gpu_in_use_is_asked_by_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("pynvml")
    library.NVMLError = type("NVMLError", (Exception,), {})  # type: ignore[attr-defined]
    counts = iter([5_000, 7_500])

    def total(handle: str) -> int:
        assert handle == "GPU-1234"
        try:
            return next(counts)
        except StopIteration:
            raise library.NVMLError("lost") from None

    library.nvmlInit = lambda: None  # type: ignore[attr-defined]
    library.nvmlDeviceGetHandleByUUID = lambda uuid: uuid  # type: ignore[attr-defined]
    library.nvmlDeviceGetTotalEnergyConsumption = total  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1234"))
    measured = Energy(Nvml())
    with measured.phase("eval"):
        pass
    assert measured.costs() == {"train_energy_joules": None, "eval_energy_joules": 2.5, "energy_source": "nvml"}
    with measured.phase("eval"):
        pass
    assert measured.joules("eval") is None
