"""What the system says about memory: of a process, of dead children, and of the machine.

Asked by :mod:`dangad.pool.link`, for its worker. Everything comes from ``/proc`` and the process
table, so that reading waits for no disk. Where there is no ``/proc``, nothing is known.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a living process, in bytes; 0 is "not known"."""

    resident: int = 0
    """What it has in RAM now."""
    peak: int = 0
    """The most that it has had."""


def memory_of(pid: int) -> Memory:
    """The memory of the process `pid`; nothing known of one that is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if line.startswith(b"Vm"))
        return Memory(_kib(fields[b"VmRSS"]), _kib(fields[b"VmHWM"]))
    except (OSError, KeyError, ValueError):
        return Memory()


def _kib(value: bytes) -> int:
    return int(value.split()[0]) * 1024


class Deaths:
    """What can be learned from the deaths of this process's children, one after the other."""

    def __init__(self) -> None:
        #: The seconds of CPU time of all children so far, and the peak memory of the largest.
        self._cpu, self._largest = _read_children()
        #: How many processes of the machine the kernel has killed for want of memory.
        self._killed = _killed_for_memory()

    def take_last(self) -> tuple[float, int]:
        """What the child took that was reaped since this was last asked.

        That is the seconds of CPU time of the child and of those that it has waited for, and
        its peak memory in bytes, or 0 if others had more: the kernel keeps the maximum over
        all children. And a child begins as a copy of this process, so up to the size of this
        one the figure says nothing about the child.
        """
        cpu, largest = self._cpu, self._largest
        self._cpu, self._largest = _read_children()
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return self._cpu - cpu, self._largest if self._largest > max(largest, own) else 0

    def kernel_killed_some(self) -> bool:
        """Whether the kernel killed any process for want of memory since this was last asked."""
        before, self._killed = self._killed, _killed_for_memory()
        return self._killed > before


def _read_children() -> tuple[float, int]:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def _killed_for_memory() -> int:
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
