"""The CPU time and the memory that each job uses.

Used by :mod:`dangad.worker.child`, which sends the numbers with the job's answer.
"""

from __future__ import annotations

import resource

LOOK_AGAIN = 0.005
"""Seconds of CPU time after which the peak of a process smaller than its parent is read again.

Filling memory takes time: in these seconds a process can grow by some 20 MiB.
"""

_NEXT_TO_NOTHING = 1
"""KiB of peak memory of a process that has grown by nothing; 0 would be "not known"."""


class Meter:
    """Reads the worker's meters after each job.

    A process begins as a copy of its parent, and the kernel's figure for its peak memory begins
    with the parent's size. Until the process is larger, its own peak has to be looked up, which
    takes longer than a small job.
    """

    def __init__(self, shared: int = 0) -> None:
        """Begin before the first job.

        :param shared: the bytes that the process shares with others; they do not count.
        """
        self._shared = shared // 1024
        #: The seconds of CPU time at the end of the last job.
        self._cpu, inherited = _read()
        #: The CPU time when the process's own peak was last read.
        self._looked_at = self._cpu
        #: The process's own peak, as it was last read.
        self._own_peak = _peak_of_own()
        self._inherited = inherited if inherited > self._own_peak * 1.1 else 0

    def usage(self) -> bytes:
        """The resource usage since the last call, in the form of ``workerboxes.DONE``.

        It has the CPU time of this process and of the children for which it has waited, and the
        most memory that this process has had since it started, without what it shares.
        """
        before = self._cpu
        self._cpu, peak = _read()
        if peak == self._inherited:
            if self._cpu - self._looked_at > LOOK_AGAIN:
                self._looked_at = self._cpu
                self._own_peak = _peak_of_own()
            peak = self._own_peak
        if self._shared:
            peak = max(_NEXT_TO_NOTHING, peak - self._shared)
        return b"%d %d %d" % ((self._cpu - before) * 1e6, peak, self._cpu * 1e6)

    @property
    def cpu(self) -> int:
        """Microseconds of CPU time until the last `usage`, or until the start."""
        return int(self._cpu * 1e6)


def _read() -> tuple[float, int]:
    """Seconds of CPU time, and the peak memory in KiB, so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return cpu, own.ru_maxrss


def _peak_of_own() -> int:
    """The process's own peak memory in KiB, without its parent's; 0 if this is not known."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0
