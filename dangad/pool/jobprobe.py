"""Whether a worker has the job that it is believed to run, and whether it gives signs of life.

Kept by :mod:`dangad.pool.link`, which looks about once a second. What lies in a worker's pipe
anything in its process can read, a forked process of an earlier job for instance: then the parent
waits for an answer, and the worker for a job. So a worker whose job takes long is asked for a sign
of life, by a box behind the job. A worker that runs the job does not come to read that box before
it has answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.wire import workerboxes

if TYPE_CHECKING:
    from dangad.pool.jobpipe import JobPipe
    from dangad.scheduler.record import Job

PATIENCE = 3.0
"""Seconds in which a worker that has read the question must have answered something."""


class JobProbe:
    """What one worker was asked, and what is known of its job."""

    __slots__ = ("_job", "_read_at", "asked", "pings")

    def __init__(self) -> None:
        #: How many signs of life it was asked for, and has not given yet.
        self.pings = 0
        #: Whether it was asked behind the job that it is believed to run.
        self.asked = False
        #: The job that it had at the last look.
        self._job: Job | None = None
        #: When the question behind that job was first seen to have been read; None if it was not.
        self._read_at: float | None = None

    def ping(self, pipe: JobPipe) -> None:
        """Ask for a sign of life."""
        pipe.write(workerboxes.PING_BOX, b"")
        self.pings += 1

    def pong(self, job: Job | None) -> bool:
        """Take a sign of life; whether it shows that `job`, believed to run, never did."""
        self.pings -= 1
        if self.pings:
            return False
        asked, self.asked = self.asked, False
        return asked and job is not None and job is self._job

    def look(self, job: Job | None, pipe: JobPipe, now: float) -> bool:
        """Whether `job`, believed to run, was read by something else; ask behind it if need be.

        It was if the question was read, too, and there is no answer.
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
