"""What is remembered of jobs after their end: counts, and the last jobs.

Kept by :mod:`dangad.scheduler.dispatcher`, read by the parts that report on jobs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from dangad.limits import LOG_ALL, LOG_FAILED
from dangad.scheduler.joblog import JobLog
from dangad.scheduler.metrics import EDGES, Metrics
from dangad.scheduler.record import END_STATES, JobState
from dangad.text import printable

if TYPE_CHECKING:
    from dangad.errors import DangadError
    from dangad.scheduler.interfaces import IJournal
    from dangad.scheduler.outbox import Outbox
    from dangad.scheduler.record import Job

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
    :ivar metrics: the counts of each command.
    :ivar journals: those who watch the lives of jobs; usually nobody.
    :ivar log_failed: whether refusals and jobs that end with an error of the server's are logged,
        and nothing else.
    """

    __slots__ = (
        "_outbox",
        "accepted",
        "ended",
        "journals",
        "log_failed",
        "metrics",
        "recent",
        "refused",
    )

    def __init__(self, outbox: Outbox, log_jobs: str) -> None:
        """Begin with no jobs.

        :param outbox: takes the calls to those who watch.
        :param log_jobs: which jobs are logged, one of :data:`dangad.limits.LOG_JOBS`.
        """
        self._outbox = outbox
        self.journals: tuple[IJournal, ...] = (JobLog(),) if log_jobs == LOG_ALL else ()
        self.accepted = 0
        self.refused = 0
        self.ended: dict[JobState, int] = dict.fromkeys(END_STATES, 0)
        self.recent: deque[Job] = deque(maxlen=RECENT)
        self.metrics = Metrics()
        self.log_failed = log_jobs == LOG_FAILED

    def note_acceptance(self, job: Job) -> None:
        """`job` has just been accepted."""
        self.accepted += 1
        present, command = self.metrics.present, job.command
        present[command] = present.get(command, 0) + 1
        for journal in self.journals:
            self._outbox.put(journal.job_accepted, job)

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
        state, metrics = job.state, self.metrics
        self.ended[state] += 1
        self.recent.append(job)
        command = job.command
        left = metrics.present.pop(command, 1) - 1
        if left:
            metrics.present[command] = left
        ours = metrics.by_command.get(command, metrics.others)
        ours.ended[state] += 1
        if job.attempt:
            waited, ran = job.started_at - job.accepted_at, now - job.started_at
            ours.waits.counts[bisect_left(EDGES, waited)] += 1
            ours.waits.sum += waited
            ours.runtimes.counts[bisect_left(EDGES, ran)] += 1
            ours.runtimes.sum += ran
            if state is not JobState.CANCELLED:
                latency = now - job.accepted_at
                metrics.latencies.counts[bisect_left(EDGES, latency)] += 1
                metrics.latencies.sum += latency
        for journal in self.journals:
            self._outbox.put(journal.job_ended, job)

    def note_reason(self, job: Job, code: bytes, text: str) -> None:
        """`job` has ended with an error of this code and text."""
        if len(text) > MOST_TEXT:
            text = text[: MOST_TEXT - 3] + "..."
        shown = printable(code[:MOST_CODE].decode("latin-1"))
        job.ended_for = shown, printable(text)
        if job.state is not JobState.CANCELLED:
            self.metrics.note_code(job.command, shown)

    def note_refusal(self, job: Job, error: DangadError) -> None:
        """`job` was refused."""
        self.refused += 1
        self.metrics.note_refusal(job.command, error.code.decode("ascii", "replace"))
        for journal in self.journals:
            self._outbox.put(journal.job_refused, job, error)
