"""What each job takes of its worker: CPU time and memory.

Used by :mod:`dangad.worker.child`, which sends it with the job's answer.
"""

from __future__ import annotations

import resource

LOOK_AGAIN = 0.005
"""Seconds of CPU time in which a process that is smaller than its parent was is not looked at.

To fill memory takes time, too: in so much a process can have grown by some 20 MiB.
"""


class Meter:
    """Reads the worker's meters after each job.

    A process begins as a copy of its parent, and the kernel's figure for its peak memory with
    the parent's size. Until it is larger than that, its own peak has to be looked up, which
    takes longer than a small job.

    All mutable state: `_cpu`, the seconds of CPU time at the end of the last job; `_own_peak`,
    the peak that was looked up last, and `_looked_at`, the CPU time then.
    """

    def __init__(self) -> None:
        self._cpu, inherited = _read()
        self._looked_at = self._cpu
        self._own_peak = _peak_of_own()
        self._inherited = inherited if inherited > self._own_peak * 1.1 else 0

    def usage(self) -> bytes:
        """What was taken since the last usage, in the form of ``workerboxes.DONE``.

        The time is of this process and of the children for which it has waited, the memory the
        most that this process has had since it began.
        """
        before = self._cpu
        self._cpu, peak = _read()
        if peak == self._inherited:
            if self._cpu - self._looked_at > LOOK_AGAIN:
                self._looked_at = self._cpu
                self._own_peak = _peak_of_own()
            peak = self._own_peak
        return b"%d %d %d" % ((self._cpu - before) * 1e6, peak, self._cpu * 1e6)

    @property
    def cpu(self) -> int:
        """Microseconds of CPU time until the last usage, or until the beginning."""
        return int(self._cpu * 1e6)


def _read() -> tuple[float, int]:
    """Seconds of CPU time, and the peak memory in KiB, so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return cpu, own.ru_maxrss


def _peak_of_own() -> int:
    """The process's own peak memory in KiB, without what it began with; 0 if that is not told."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0
