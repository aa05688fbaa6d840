"""What ended a worker, in words for the log and for the client of the job that it ran.

Kept by :mod:`dangad.pool.link` while the worker lives, and written when its process is gone.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from twisted.internet import error

from dangad.host.memory import memory_of
from dangad.pool.output import last_lines
from dangad.scheduler.record import Death
from dangad.text import show_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.python.failure import Failure

    from dangad.host.memory import KernelKills
    from dangad.host.reaping import Taken
    from dangad.pool.containment import LastSteps
    from dangad.scheduler.record import Job
    from dangad.wire.boxes import Raw

NEARLY = 0.9
"""How much of the memory that a worker may have makes that the likely cause of its death."""


class Obituary:
    """What is known of one worker for the day on which it is gone."""

    def __init__(self, kernel_kills: KernelKills, max_memory: int) -> None:
        """Begin with a worker that has done nothing.

        :param max_memory: the bytes that it may have; 0 for any number.
        """
        self._kernel_kills = kernel_kills
        self._max_memory = max_memory
        #: What its last job took, with which the CPU time of all of them is told; empty before.
        self.usage = b""
        #: The microseconds of CPU time that it had taken before its first job.
        self.cpu_of_boot = 0
        #: What it said before it exited.
        self.last_words: str | None = None
        #: The most bytes of memory that it was seen to have.
        self._peak = 0

    def weigh(self, pid: int) -> int:
        """The bytes of memory that it has now; 0 if that cannot be told."""
        memory = memory_of(pid)
        self._peak = max(self._peak, memory.peak)
        return memory.resident

    def write(
        self,
        status: Failure,
        taken: Taken | None,
        steps: LastSteps,
        *,
        booted: bool,
        killed_for: str | None,
        job: Job | None,
        printed: Collection[str],
        unread: Raw,
    ) -> Death:
        """What ended it; each part of that is told whatever becomes of the others.

        :param status: how its process ended.
        :param taken: what the process took; None if that is not known.
        :param steps: by which its parts are found out.
        :param booted: whether it has said Hello.
        :param killed_for: why the parent killed it; None if it did not.
        :param job: the job that it ran.
        :param printed: the last lines that it printed.
        :param unread: the request of that job, if it had not read it.
        """
        ended = steps.take("reading its status", _how_it_ended, status, booted, printed)
        how = killed_for or self.last_words or ended or "is gone"
        usage = steps.take("reading what it took", self._last_usage, taken) or b""
        about = steps.take("describing its end", self._details, status, killed_for) or ""
        if job is not None and job.stopped_for is None:
            words = steps.take("reading what it printed", last_lines, printed)
            about += f"; it printed last: {words}" if words else ""
        return Death(how, about, usage, unread)

    def _last_usage(self, taken: Taken | None) -> bytes:
        """What the job took that it ran when it died, in the form of ``Job.usage``."""
        if taken is None:
            return b""
        self._peak = max(self._peak, taken.peak_memory)
        before = int(self.usage.split()[2]) if self.usage else self.cpu_of_boot
        return b"%d %d" % (max(0, taken.cpu - before), self._peak // 1024)

    def _details(self, status: Failure, killed_for: str | None) -> str:
        """What is known of memory as the cause of its death, beginning with "; ", or nothing."""
        words = f"; it had used up to {show_bytes(self._peak)} of memory" if self._peak else ""
        if self._max_memory and self._peak >= NEARLY * self._max_memory:
            words += f", and --max-memory is {show_bytes(self._max_memory)}"
        by_sigkill = getattr(status.value, "signal", None) == signal.SIGKILL
        if killed_for is None and by_sigkill and self._kernel_kills.are_more():
            words += ", and the system has killed a process for want of memory"
        return words


def _how_it_ended(status: Failure, booted: bool, printed: Collection[str]) -> str:
    """The process's end in words, with what it printed if it has not come as far as its Hello."""
    how = _how_the_process_ended(status)
    if booted:
        return how
    words = last_lines(printed)
    return f"{how} before it was ready" + (f"; it printed last: {words}" if words else "")


def _how_the_process_ended(status: Failure) -> str:
    """The process's end in words that follow "worker 4711"."""
    value = status.value
    if isinstance(value, error.ProcessTerminated) and value.signal is not None:
        try:
            return f"was killed by {signal.Signals(value.signal).name}"
        except ValueError:
            return f"was killed by signal {value.signal}"
    return f"exited (status {getattr(value, 'exitCode', None) or 0})"
