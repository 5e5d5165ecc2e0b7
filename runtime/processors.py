"""How many threads this process may use: processor affinity and container limits, not the processors of the machine."""

import math
import os
from pathlib import Path

MOST = 4
"""Threads for one session by default: the graphs are small and gain nothing from more."""
CGROUP_2 = Path("/sys/fs/cgroup/cpu.max")
CGROUP_1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_processors() -> int:
    """Processors this process may keep busy, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = container_quota()
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def container_quota() -> float | None:
    """Processors' worth of time that the control group of a container grants; None without a limit."""
    try:
        quota, period = CGROUP_2.read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota, period = (file.read_text().strip() for file in CGROUP_1)
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return share if share > 0 else None


def default_threads() -> int:
    """Threads for one session."""
    return min(MOST, usable_processors())
