"""The memory of one process, and the processes killed for want of memory, as the kernel reports.

Used by :mod:`dangad.pool.obituary`, for its worker. All numbers come from ``/proc``, so reading
waits for no disk. Without ``/proc`` nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a living process, in bytes; 0 is "not known"."""

    resident: int = 0
    """The bytes in RAM now."""
    peak: int = 0
    """The most bytes in RAM so far."""
    data: int = 0
    """Private writable memory, used or not, as RLIMIT_DATA counts it: see getrlimit(2)."""


def memory_of(pid: int) -> Memory:
    """The memory of the process `pid`; all 0 if the process is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if line.startswith(b"Vm"))
        return Memory(*(_kib(fields[name]) for name in (b"VmRSS", b"VmHWM", b"VmData")))
    except (OSError, KeyError, ValueError):
        return Memory()


def _kib(value: bytes) -> int:
    return int(value.split()[0]) * 1024


class KernelKills:
    """The processes of the machine that the kernel has killed for want of memory."""

    def __init__(self) -> None:
        #: How many they were at the last call.
        self._killed = _killed_for_memory()

    def are_more(self) -> bool:
        """Whether the kernel has killed any process since the last call."""
        before, self._killed = self._killed, _killed_for_memory()
        return self._killed > before


def _killed_for_memory() -> int:
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
