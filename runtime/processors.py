"""How many threads this process may use: processor affinity and container limits, not the processors of the machine."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

MOST = 4
"""Threads for one session by default: the graphs are small and gain nothing from more."""
MEMBERSHIP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
NO_BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""Environment in which numpy's matrix library starts no threads of its own, which spin as they start and are never used here."""


def usable_processors() -> int:
    """Processors this process may keep busy, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = container_quota()
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def container_quota() -> float | None:
    """Processors' worth of time that control groups grant; None without a limit.

    A limit holds for everything below it: of the process's own group and those around it, the tightest counts.
    """
    shares = [share for group in _own_groups() for share in (_share(group),) if share is not None]
    return min(shares, default=None)


def _own_groups() -> Iterator[Path]:
    """Folders of the process's groups, each with those around it, of both versions of control groups.

    A container often sees its own group as the root of all, while its membership names a path outside: folders that are not there are
    asked for in vain.
    """
    try:
        memberships = MEMBERSHIP.read_text().splitlines()
    except OSError:
        memberships = ["0::/"]
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root = CGROUPS
        elif "cpu" in controllers.split(","):
            root = CGROUPS / "cpu"
        else:
            continue
        group = root / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _share(group: Path) -> float | None:
    """What one group grants; None without a limit."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()[:2]
        else:
            quota, period = ((group / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return share if share > 0 else None


def default_threads() -> int:
    """Threads for one session."""
    return min(MOST, usable_processors())
