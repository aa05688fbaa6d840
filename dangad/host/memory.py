"""What the system says about memory: of one process, and of the whole machine.

Asked by :mod:`dangad.pool.obituary`, for its worker. Everything comes from ``/proc``, so that
reading waits for no disk. Where there is no ``/proc``, nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a living process, in bytes; 0 is "not known"."""

    resident: int = 0
    """What it has in RAM now."""
    peak: int = 0
    """The most that it has had."""
    data: int = 0
    """What RLIMIT_DATA counts, see getrlimit(2): its private writable memory, used or not."""


def memory_of(pid: int) -> Memory:
    """The memory of the process `pid`; nothing known of one that is gone."""
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
        #: How many they were when it was last asked.
        self._killed = _killed_for_memory()

    def are_more(self) -> bool:
        """Whether the kernel has killed any since this was last asked."""
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
