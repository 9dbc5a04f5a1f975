"""The memory and CPU cores available to this process."""

import os
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUP, CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_bytes() -> int:
    """Return the memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_cpus() -> int:
    """Return the number of cores for this process, limited by affinity, control groups and Slurm."""
    bounds = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for folder in _control_groups("cpu"):
        quota, period = _numbers(folder / "cpu.max") or (
            _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us") or (0, 0)
        )
        if quota > 0 and period > 0:
            bounds.append(quota // period)
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm):
        bounds.append(int(slurm))
    return max(1, min(bounds))


def usable_memory() -> int:
    """Return the memory for this process in bytes, limited by its control groups."""
    limits = [
        _numbers(folder / name)
        for folder in _control_groups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    return min([memory_bytes(), *(limit[0] for limit in limits if limit)])


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups (version 2 or 1), innermost first."""
    try:
        lines = CONTROL_GROUP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, inner = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = CONTROL_GROUPS / controller if names else CONTROL_GROUPS
        place = root / inner.strip("/")
        # In a container the path is the host's, and the mounted root is the group.
        yield from [place, *(parent for parent in place.parents if parent.is_relative_to(root))]


def _numbers(path: Path) -> tuple[int, ...]:
    """Return the numbers in a file of a control group; empty if there is no file or no limit ("max")."""
    try:
        return tuple(int(part) for part in path.read_text().split())
    except (OSError, ValueError):
        return ()
