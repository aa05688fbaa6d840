"""What the kernel tells: the machine's description, and what processes use of it.

Used by the questions, and for the head of a result file.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("dangad", "twisted", "ampoule", "loky", "celery", "redis", "dask", "distributed")
"""Of PyPI, as far as installed."""

DEBIAN_PACKAGES = (
    "gearman-server",
    "gearman-job-server",
    "libgearman-client-perl",
    "redis-server",
)

_PROC = Path("/proc")
_MOMENT = 0.5
_TICK = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """The machine, in words and numbers."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {**_python_packages(), **_debian_packages()},
        "busy": _busy_share(),
    }


def allow_many_files() -> int:
    """Raise the limit on open files as far as it goes, for all processes from here on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used, of all its threads.

    To the nanosecond where the kernel keeps scheduler statistics, else in clock ticks.
    """
    total = 0
    for task in (_PROC / str(pid) / "task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICK
    return total / 1e9


def resident(pid: int) -> int:
    """Bytes of memory that a process has now."""
    return _status(pid, "VmRSS")


def peak_resident(pid: int) -> int:
    """The most that it has had so far."""
    return _status(pid, "VmHWM")


def proportional(pid: int) -> int:
    """Bytes of memory of a process, where pages that n processes share count 1/n each (PSS).

    Of a process that has ended it is 0.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:  # grows meanwhile
        found += children.get(each, [])
    return found


def available() -> int:
    """Bytes of memory that could be had without swapping."""
    for line in (_PROC / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise LookupError("the kernel does not tell the available memory")


def _busy_share() -> float:
    """The share of all cores that others use, looked at for a moment."""
    busy_before, all_before = _cpu_ticks()
    time.sleep(_MOMENT)
    busy, total = _cpu_ticks()
    return (busy - busy_before) / max(1, total - all_before)


def _cpu_ticks() -> tuple[int, int]:
    """The clock ticks that the machine was busy, and all."""
    ticks = [int(each) for each in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, idle, iowait, *rest = ticks
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + iowait


def _status(pid: int, key: str) -> int:
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"the kernel does not tell the {key} of process {pid}")


def _cpu_model() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _python_packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _debian_packages() -> dict[str, str]:
    if shutil.which("dpkg-query") is None:
        return {}
    query = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *DEBIAN_PACKAGES]
    shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return dict(line.split() for line in shown.splitlines() if len(line.split()) == 2)
