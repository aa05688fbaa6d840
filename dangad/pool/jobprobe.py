"""Checks that a worker has the job that it is believed to run, and that it gives signs of life.

Kept by :mod:`dangad.pool.link`, which checks about once a second. Code other than the worker's loop
can read the job from the pipe, for instance a process that an earlier job has forked. Then the
parent waits for an answer and the worker for a job. So a worker whose job takes long is asked for a
sign of life, by a box behind the job. A worker that runs the job reads this box only after its
answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.wire import workerboxes

if TYPE_CHECKING:
    from dangad.pool.jobpipe import JobPipe
    from dangad.scheduler.record import Job

PATIENCE = 3.0
"""Seconds in which a worker must answer after it has read the question."""


class JobProbe:
    """The questions to one worker, and what is known of its job."""

    __slots__ = ("_job", "_read_at", "asked", "pings")

    def __init__(self) -> None:
        #: How many questions have no answer yet.
        self.pings = 0
        #: Whether a question stands behind the job that the worker is believed to run.
        self.asked = False
        #: The job of the worker at the last check.
        self._job: Job | None = None
        #: When a check first found the question behind this job read; None if none did.
        self._read_at: float | None = None

    def ping(self, pipe: JobPipe) -> None:
        """Ask for a sign of life."""
        pipe.write(workerboxes.PING_BOX, b"")
        self.pings += 1

    def pong(self, job: Job | None) -> bool:
        """Take a sign of life; whether it proves that the worker never had `job`."""
        self.pings -= 1
        if self.pings:
            return False
        asked, self.asked = self.asked, False
        return asked and job is not None and job is self._job

    def look(self, job: Job | None, pipe: JobPipe, now: float) -> bool:
        """Whether something else has read `job`, which is believed to run.

        A question is put behind the job if needed. If the question was read, too, and no answer
        comes, then it was not the worker that read them.
        """
        unread = pipe.unread
        if job is not self._job:
            self._job, self.asked, self._read_at = job, False, None
        elif job is not None and not self.asked and not unread:
            self.asked = True
            self.ping(pipe)
            return False
        if not self.asked or unread:
            self._read_at = None
        elif self._read_at is None:
            self._read_at = now
        return self._read_at is not None and now - self._read_at >= PATIENCE
