"""The state of the rules: which jobs wait, which worker has which jobs, what is still to be done.

Made by :mod:`dangad.scheduler.dispatcher` for itself and its parts: :mod:`.admission`,
:mod:`.matching`, :mod:`.answers`, :mod:`.endings`, :mod:`.retries`, :mod:`.absences`,
:mod:`.descriptions` and :mod:`.interventions`. It decides nothing.

Always true between two events: an accepted job is in exactly one place. It is in the queue, or
rests before its next attempt, or is in the row of one worker, or has ended. If it has ended, its
client was told so once. No worker is idle while a job waits that may start on it. A paused job may
not start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from dangad.host.quietlog import QuietLog
from dangad.scheduler.alarms import Alarms
from dangad.scheduler.assignments import Assignments
from dangad.scheduler.chores import Chores
from dangad.scheduler.concurrency import Lanes
from dangad.scheduler.counters import Counters
from dangad.scheduler.fairqueue import JobQueue
from dangad.scheduler.outbox import Outbox
from dangad.scheduler.registry import Registry
from dangad.scheduler.runtimes import RunTimes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.interfaces import IReactorTime

    from dangad.errors import DangadError
    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.quarantine import Quarantine
    from dangad.scheduler.record import Job

log = Logger(namespace="dangad.scheduler.dispatcher")

AGEING = 30.0
"""Seconds of waiting after which the next job of a priority takes turns with more urgent ones."""
LOGGED_ENDS = 10
"""How many jobs of one client that end with the same kind of error get a line each in the log; the
others are counted."""


class State:
    """The state of the rules, shared by all parts."""

    def __init__(self, clock: IReactorTime, quarantine: Quarantine, log_jobs: str) -> None:
        """Begin with no jobs and no workers.

        :param clock: where the time comes from.
        :param quarantine: which commands are kept away from the workers for a while.
        :param log_jobs: which jobs are logged, one of :data:`dangad.limits.LOG_JOBS`.
        """
        self.clock = clock
        #: The jobs that wait.
        self.queue = JobQueue(AGEING)
        #: What the workers perform.
        self.registry = Registry()
        #: Which workers are idle, and which jobs the others have.
        self.assignments = Assignments(self.registry)
        #: Which waiting jobs are kept back.
        self.lanes = Lanes(self.queue, self.registry, self.assignments)
        self.quarantine = quarantine
        #: How long jobs with deadlines take.
        self.run_times = RunTimes()
        #: The calls to clients and to the log that the present event has put off.
        self.outbox = Outbox()
        #: How the ended jobs ended.
        self.counters = Counters(self.outbox, log_jobs)
        #: Calls at a later time.
        self.alarms = Alarms(clock)
        #: Work that is done in parts, one in each turn of the reactor.
        self.chores = Chores(clock)
        self.quiet = QuietLog(clock, log, LOGGED_ENDS)
        #: Clients that are gone and still have waiting jobs.
        self.gone: set[IClient] = set()
        #: Whether no more jobs are accepted.
        self.draining = False
        #: Why the drain waits no longer; None if it still does.
        self.given_up: DangadError | None = None
        #: Why no worker can be started; None if one can.
        self.no_workers: str | None = None
        #: Why none could be started when jobs waited for one that has had none; None since one was.
        self.no_unused: str | None = None
        #: The jobs that are to be reviewed since the catalogue has changed, or other jobs are
        #: paused: they may belong in another lane, or must not wait. None if all were reviewed.
        self.to_review: Iterator[Job] | None = None

    @property
    def waiting(self) -> int:
        """How many jobs wait, including prefetched ones and those that rest between attempts."""
        return self.queue.count + self.assignments.prefetched

    @property
    def seeking(self) -> int:
        """How many jobs wait for a worker: all that wait, without the paused ones."""
        return self.waiting - self.queue.paused

    def tell(self) -> None:
        """Make the calls that the present event has put off, now that the state is whole."""
        if self.outbox.calls or self.outbox.last is not None:
            self.outbox.send()
