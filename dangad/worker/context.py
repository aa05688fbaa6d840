"""What a job function may ask and tell while it runs: :func:`current_job`.

Set by :mod:`dangad.worker.perform` around each call of a job function.
"""

from __future__ import annotations

import time
from operator import index
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REPORT_INTERVAL = 0.1
"""Seconds between two progress reports that are sent; those in between are not."""
MAX_MESSAGE = 1000
"""Characters of a progress report's message."""


class JobStopped(BaseException):
    """The job that runs is to end now: its answer would no longer be taken.

    Raised in the middle of the job function, in the worker's main thread, once. The function
    may clean up for a moment, which it has until its process is killed. Not an Exception, so
    that ``except Exception`` does not keep it.
    """


class TimeLimitExceeded(JobStopped):
    """The job has run for its type's time limit, or its request's deadline has passed."""


class JobCancelled(JobStopped):
    """The job was cancelled, by its client or by an operator."""


class RunningJob:
    """The job that runs in this process now.

    :ivar id: the server's number for it; 0 outside a server.
    :ivar command: the name of its command.
    :ivar attempt: 1 at the first run, 2 at the first retry, and so on.

    All mutable state: `_next_report`, before when progress is not sent, and `_unsent`, the
    last progress that was therefore not.
    """

    def __init__(
        self,
        id: int,
        command: str,
        attempt: int,
        ends_at: float | None = None,
        report: Callable[[int, int, str], None] | None = None,
        part: Callable[[bytes], None] | None = None,
    ) -> None:
        """Describe a job.

        :param ends_at: when its time is over, in seconds of :func:`time.monotonic`.
        :param report: what takes its progress; None if nobody wants to know.
        :param part: what takes the parts of its result; None if nobody wants them.
        """
        self.id = id
        self.command = command
        self.attempt = attempt
        self._ends_at = ends_at
        self._report = report
        self._part = part
        self._next_report = 0.0
        self._unsent: tuple[int, int, str] | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until its time limit or deadline, 0 or more; None if it has neither."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    @property
    def wants_chunks(self) -> bool:
        """Whether the client asked for partial results, so that :meth:`send` reaches it."""
        return self._part is not None

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Tell the client, if it asked, that `done` of `total` units of work are done.

        May be called as often as is convenient: the client is told ten times a second at
        most, and always of the last call. A message is cut to `MAX_MESSAGE` characters.

        :raises TypeError: `done` or `total` is no whole number, or `message` no text.
        """
        done, total = index(done), index(total)
        message = message[:MAX_MESSAGE].encode("utf-8", "replace").decode("utf-8")
        if self._report is None:
            return
        now = time.monotonic()
        if now < self._next_report:
            self._unsent = done, total, message
            return
        self._next_report = now + REPORT_INTERVAL
        self._unsent = None
        self._report(done, total, message)

    def send(self, chunk: bytes) -> None:
        """Send the client, if it asked for partial results, the next part.

        Blocks while the client has more than it reads, so that nothing piles up.

        :raises TypeError: the chunk is not bytes.
        :raises TooLarge: it is larger than the server's ``--max-payload``.
        """
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise TypeError(f"a chunk is bytes, not {type(chunk).__name__}")
        if self._part is not None:
            self._part(bytes(chunk))

    def flush(self) -> None:
        """Tell the client of the last progress, if it was not told yet."""
        if self._report is not None and self._unsent is not None:
            self._report(*self._unsent)
            self._unsent = None


NO_JOB = RunningJob(0, "", 1)
"""What :func:`current_job` gives where no job runs, as when a test calls a job function."""

_current = NO_JOB


def current_job() -> RunningJob:
    """The job that runs in this process now; a stand-in with id 0 if none does."""
    return _current


def set_current_job(job: RunningJob) -> None:
    """Make `job` the one that :func:`current_job` gives."""
    global _current
    _current = job
