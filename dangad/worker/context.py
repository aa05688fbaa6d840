"""What a job function may ask and tell while it runs: :func:`current_job`.

Set by :mod:`dangad.worker.perform` around each call of a job function.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RunningJob:
    """The job that runs in this process now.

    :ivar id: the server's number for it; 0 outside a server.
    :ivar command: the name of its command.
    :ivar attempt: 1 at the first run, 2 at the first retry, and so on.
    """

    def __init__(
        self,
        id: int,
        command: str,
        attempt: int,
        ends_at: float | None = None,
        report: Callable[[int, int, str], None] | None = None,
    ) -> None:
        """Describe a job.

        :param ends_at: when its time is over, in seconds of :func:`time.monotonic`.
        :param report: what takes its progress; None if nobody wants to know.
        """
        self.id = id
        self.command = command
        self.attempt = attempt
        self._ends_at = ends_at
        self._report = report

    @property
    def seconds_left(self) -> float | None:
        """Seconds until its time limit or deadline, 0 or more; None if it has neither."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Tell the client, if it asked, that `done` of `total` units of work are done."""
        if self._report is not None:
            self._report(done, total, message)


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
