"""What the processes of a box have used, as the kernel tells it from outside (`/proc`)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of all processes together: seconds of a processor, seconds of waiting for one (`None`: the kernel does not tell),
    bytes of memory; and the number of files in the temporary folder.
    """

    cpu_seconds: float
    waited_seconds: float | None
    memory_bytes: int
    files: int


def usage(pid: int, folder: str) -> Usage:
    """What a process and all below it have used so far; processes that have ended count by what their parents know."""
    cpu, waited, memory, files = 0.0, 0.0, 0, 0
    told = True
    for place in map(Path, (f"/proc/{each}" for each in _family(pid))):
        with suppress(OSError, ValueError):
            # Own and ended children's times follow the name, which may have blanks and brackets.
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            cpu += sum(map(int, fields[11:15])) / TICKS
        with suppress(OSError, ValueError):
            memory += _memory(place)
        with suppress(OSError):
            files = max(files, _files(place / "root" / folder.lstrip("/"), Path(folder)))
        delay = _waited(place)
        told, waited = told and delay is not None, waited + (delay or 0.0)
    return Usage(cpu, waited if told else None, memory, files)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError, ValueError):
            for child in map(int, task.read_text().split()):
                yield from _family(child)


def _files(inside: Path, ours: Path) -> int:
    """Files and folders in a temporary folder of the box's own; while the box is made, and without one, it is ours."""
    if inside.stat().st_dev == ours.stat().st_dev:
        return 0
    found = os.statvfs(inside)
    return found.f_files - found.f_ffree


def _memory(place: Path) -> int:
    """A process's share of the memory that it uses, where that can be read; else all of it."""
    with suppress(OSError):
        for line in (place / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _waited(place: Path) -> float | None:
    """Seconds that the threads of a process were ready to run and did not, together; 0 of a process that has ended."""
    found = []
    with suppress(OSError):
        for task in (place / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
                found.append(int((task / "schedstat").read_text().split()[1]) / 1e9)
    return sum(found) if found or not place.exists() else None
