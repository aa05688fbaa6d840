"""Whether a worker has the job that it is believed to run.

Asked by :mod:`dangad.pool.link` about once a second. What lies in a worker's pipe anything in its
process can read, a forked process of an earlier job for instance: then the parent waits for an
answer, and the worker for a job. So a worker whose job takes long is asked for a sign of life, by a
box behind the job. One that runs the job does not come to read that before it has answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dangad.scheduler.record import Job

PATIENCE = 3.0
"""Seconds in which a worker that has read the question must have answered something."""


class JobCheck:
    """What is known of one worker's job.

    All mutable state: `_job`, the one that it had at the last look; `asked`, whether it was asked
    behind that; `_read_at`, when that was first seen to have been read.
    """

    def __init__(self) -> None:
        self.asked = False
        self._job: Job | None = None
        self._read_at: float | None = None

    def look(self, job: Job | None, unread: int) -> bool:
        """Whether the worker is to be asked now.

        :param job: the one that it is believed to run.
        :param unread: how many bytes lie in its pipe.
        """
        if job is not self._job:
            self._job, self.asked, self._read_at = job, False, None
        elif job is not None and not self.asked and not unread:
            self.asked = True
            return True
        return False

    def is_lost(self, unread: int, now: float) -> bool:
        """Whether something has read the question that gives no answer, and so the job, too."""
        if not self.asked or unread:
            self._read_at = None
        elif self._read_at is None:
            self._read_at = now
        return self._read_at is not None and now - self._read_at >= PATIENCE

    def answered(self, job: Job | None) -> bool:
        """Whether `job`, still believed to run when the answer comes, never did."""
        asked, self.asked = self.asked, False
        return asked and job is not None and job is self._job
