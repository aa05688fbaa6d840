"""What is remembered of jobs after their end: counts, the last jobs, and lines in the log.

Kept by :mod:`dangad.scheduler.dispatcher`, read by the parts that report on jobs.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.logger import Logger

from dangad.scheduler.record import END_STATES, JobState
from dangad.text import printable

if TYPE_CHECKING:
    from dangad.scheduler.record import Job

log = Logger()

RECENT = 1000
"""How many jobs are remembered after their end."""
MOST_TEXT = 300
"""The most characters of an error's text that are remembered and logged."""
MOST_CODE = 100
"""The most bytes of an error's code that are remembered and logged."""


class Counters:
    """Counts of the jobs since the server started, and the last ones that ended.

    :ivar accepted: how many jobs were accepted.
    :ivar refused: how many requests were refused.
    :ivar ended: how many accepted jobs have ended, by state.
    :ivar recent: the jobs that ended last.
    :ivar log_jobs: whether the end of every job is logged.
    """

    __slots__ = ("accepted", "ended", "log_jobs", "recent", "refused")

    def __init__(self, log_jobs: bool) -> None:
        """:param log_jobs: whether the end of every job is logged."""
        self.accepted = 0
        self.refused = 0
        self.ended: dict[JobState, int] = dict.fromkeys(END_STATES, 0)
        self.recent: deque[Job] = deque(maxlen=RECENT)
        self.log_jobs = log_jobs

    @property
    def all_ended(self) -> bool:
        """Whether no accepted job is left."""
        return self.accepted == sum(self.ended.values())

    def note_end(self, job: Job, now: float) -> None:
        """`job` has just ended; its state says how."""
        job.ended_at = now
        job.box = b""
        if job.client is not None:
            job.asker = job.client.name
        self.ended[job.state] += 1
        self.recent.append(job)

    def note_reason(self, job: Job, code: bytes, text: str) -> None:
        """`job` has ended with an error of this code and text."""
        if len(text) > MOST_TEXT:
            text = text[: MOST_TEXT - 3] + "..."
        job.ended_for = printable(code[:MOST_CODE].decode("latin-1")), printable(text)

    def log_end(self, job: Job) -> None:
        """Log the end of `job`: what it used, if this is known, and why it failed, if it did."""
        took = job.took
        code, reason = job.ended_for or ("", "")
        log.info(
            "".join(
                (
                    "job {job} {command} {state}",
                    " worker={pid}" if job.pid else "",
                    " wait={wait:.6f} runtime={runtime:.6f}",
                    " cpu={cpu:.6f}" if took else "",
                    " peak_memory={peak}" if took and took.peak_memory else "",
                    " {code}: {reason}" if code else "",
                )
            ),
            job=job.id,
            command=job.name,
            state=job.state.value,
            pid=job.pid,
            wait=job.wait,
            runtime=job.runtime,
            cpu=took.cpu if took else 0.0,
            peak=took.peak_memory if took else 0,
            code=code,
            reason=reason,
        )
