"""Resource usage of the processes of a sandbox, read from outside through `/proc`."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Totals over all processes: CPU seconds, seconds of waiting for a CPU (`None`: unknown), bytes of memory.

    Also the number of files in the temporary folder.
    """

    cpu_seconds: float
    waited_seconds: float | None
    memory_bytes: int
    files: int


def usage(pid: int, folder: str) -> Usage:
    """Return the usage of a process and its descendants; ended processes are counted through their parents."""
    cpu, waited, memory, files = 0.0, 0.0, 0, 0
    told = True
    for place in map(Path, (f"/proc/{each}" for each in _family(pid))):
        with suppress(OSError, ValueError):
            # The times follow the name of the process, which may contain blanks and brackets.
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
    """Return the number of files and folders in the sandbox's temporary folder, if it has a separate one."""
    if inside.stat().st_dev == ours.stat().st_dev:
        return 0
    found = os.statvfs(inside)
    return found.f_files - found.f_ffree


def _memory(place: Path) -> int:
    """Return a process's proportional share of its memory if it can be read, else its whole resident memory."""
    with suppress(OSError):
        for line in (place / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _waited(place: Path) -> float | None:
    """Return the total seconds that the threads of a process waited for a CPU; 0 if the process has ended."""
    found = []
    with suppress(OSError):
        for task in (place / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
                found.append(int((task / "schedstat").read_text().split()[1]) / 1e9)
    return sum(found) if found or not place.exists() else None
