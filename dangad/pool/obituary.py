"""Why a worker died, in words for the log and for the client of the job that it ran.

:mod:`dangad.pool.link` collects the facts while the worker lives. The report is written when the
process is gone.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from twisted.internet import error

from dangad.host.memory import memory_of
from dangad.pool.output import last_lines
from dangad.scheduler.record import Cause, Death
from dangad.text import show_bytes, signal_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.python.failure import Failure

    from dangad.host.memory import KernelKills
    from dangad.host.reaping import Taken
    from dangad.pool.containment import LastSteps
    from dangad.scheduler.record import Job
    from dangad.wire.boxes import Raw

NEARLY = 0.9
"""The fraction of its memory limit from which on memory is the likely cause of a worker's death."""


class NotForked(Exception):
    """The process never existed; the text says why, in words that follow "worker 4711"."""


class Obituary:
    """Collects what is known of one worker, and reports its death."""

    def __init__(self, kernel_kills: KernelKills, max_memory: int) -> None:
        """Begin with a worker that has done nothing.

        :param max_memory: the bytes of memory that it may have; 0 for no limit.
        """
        self._kernel_kills = kernel_kills
        self._max_memory = max_memory
        #: The resource usage of its last job, with the total CPU time; empty before the first.
        self.usage = b""
        #: The microseconds of CPU time that it had used before its first job, and the bytes of
        #: memory that it shares with others.
        self.at_boot = [0, 0]
        #: The reason that it gave before it exited; None if it gave none.
        self.last_words: str | None = None
        #: The largest number of bytes of memory that it was seen to have, without shared ones.
        self._peak = 0
        #: Whether the system has killed it, as far as is known, for want of memory.
        self._starved = False

    def weigh(self, pid: int) -> int:
        """The bytes of memory that it has now, without shared ones; 0 if this is not known."""
        memory, shared = memory_of(pid), self.at_boot[1]
        self._peak = max(self._peak, memory.peak - shared)
        return max(0, memory.resident - shared)

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
        """The report of its death. If a part of the report fails, the other parts are still there.

        :param status: how its process ended.
        :param taken: what the process used; None if this is not known.
        :param steps: takes each step of the report, and logs the ones that fail.
        :param booted: whether it has said Hello.
        :param killed_for: why the parent killed it; None if the parent did not.
        :param job: the job that it ran; None if it ran none.
        :param printed: the last lines that it printed.
        :param unread: the request of `job`, if the worker had not read it; otherwise empty.
        """
        ended = steps.take("reading its status", _how_it_ended, status, booted, printed)
        how = killed_for or self.last_words or ended or "is gone"
        usage = steps.take("reading what it took", self._last_usage, taken) or b""
        about = steps.take("describing its end", self._details, status, killed_for) or ""
        if job is not None and job.stopped_for is None:
            words = steps.take("reading what it printed", last_lines, printed)
            about += f"; it printed last: {words}" if words else ""
        cause = (
            steps.take("finding its cause", self._cause, status, killed_for, job) or Cause.EXITED
        )
        return Death(how, about, usage, cause, unread)

    def _last_usage(self, taken: Taken | None) -> bytes:
        """The resource usage of the job that ran when it died, in the form of ``Job.usage``."""
        if taken is None:
            return b""
        _, said, before, *_ = map(int, self.usage.split() or (0, 0, self.at_boot[0]))
        own = taken.peak_memory - self.at_boot[1]
        self._peak = max(self._peak, said * 1024, own)
        return b"%d %d" % (max(0, taken.cpu - before), self._peak // 1024)

    def _details(self, status: Failure, killed_for: str | None) -> str:
        """Words about memory as the cause of death, beginning with "; "; empty if none is known."""
        own = " of its own" if self.at_boot[1] else ""
        peak = f"; it had used up to {show_bytes(self._peak)} of memory{own}"
        words = peak if self._peak else ""
        if self._max_memory and self._peak >= NEARLY * self._max_memory:
            words += f", and --max-memory is {show_bytes(self._max_memory)}"
        by_sigkill = getattr(status.value, "signal", None) == signal.SIGKILL
        if killed_for is None and by_sigkill and self._kernel_kills.are_more():
            self._starved = True
            words += ", and the system has killed a process for want of memory"
        return words

    def _cause(self, status: Failure, killed_for: str | None, job: Job | None) -> Cause:
        """What it died of."""
        if killed_for is not None:
            return Cause.KILLED
        if getattr(status.value, "signal", None) is None:
            if self.last_words is not None:
                return Cause.MEMORY
            stopped = job is not None and is_orderly(status, job)
            return Cause.RELEASED if stopped else Cause.EXITED
        return Cause.MEMORY if self._starved else Cause.CRASHED


def is_orderly(status: Failure, job: Job | None) -> bool:
    """Whether a worker has exited without an error, and has not lost the `job` that it ran."""
    return isinstance(status.value, error.ProcessDone) and (
        job is None or job.stopped_for is not None
    )


def _how_it_ended(status: Failure, booted: bool, printed: Collection[str]) -> str:
    """The process's end in words, with its last output if the worker has not said Hello."""
    how = how_the_process_ended(status)
    if booted or isinstance(status.value, NotForked):
        return how
    words = last_lines(printed)
    return f"{how} before it was ready" + (f"; it printed last: {words}" if words else "")


def how_the_process_ended(status: Failure) -> str:
    """The process's end in words that follow "worker 4711"."""
    value = status.value
    if isinstance(value, NotForked):
        return str(value)
    if isinstance(value, error.ProcessTerminated) and value.signal is not None:
        return f"was killed by {signal_name(value.signal)}"
    return f"exited (status {getattr(value, 'exitCode', None) or 0})"
