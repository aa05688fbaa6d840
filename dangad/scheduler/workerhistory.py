"""What is remembered of workers: how many were started, and how the last ones died.

Kept by :mod:`dangad.scheduler.supervisor`, read by the parts that report on workers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dangad.scheduler.outbox import log_failure
from dangad.scheduler.record import Cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.interfaces import IProcess, IWorkerJournal
    from dangad.scheduler.record import Death, Job
    from dangad.scheduler.workerrecord import WorkerRecord

MOST_DEATHS = 200
"""How many workers are remembered after their death."""
MOST_TEXT = 300
"""The most characters of a reason that are remembered."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker that is dead."""

    pid: int
    """Its process id; 0 if it never had one."""
    ended_at: float
    """When it was found dead, by the scheduler's clock."""
    age: float
    """Seconds that it lived."""
    jobs: int
    """How many jobs it had begun."""
    generation: int
    """Which generation it belonged to."""
    cause: Cause
    """What it died of."""
    why: str
    """The same in words that follow "worker 4711"."""
    job: int | None = None
    """The id of the job that it ran then; None if it ran none."""


class WorkerHistory:
    """Remembers the workers, and tells those who watch."""

    def __init__(self) -> None:
        #: How many processes were started.
        self.started = 0
        #: How many workers have died, by cause.
        self.deaths: dict[Cause, int] = dict.fromkeys(Cause, 0)
        #: The workers that died last.
        self.gone: deque[Gone] = deque(maxlen=MOST_DEATHS)
        #: Those who watch. An exception of theirs is logged, and concerns nobody else.
        self.journals: tuple[IWorkerJournal, ...] = ()

    def note_start(self, process: IProcess) -> None:
        """`process` was started."""
        self.started += 1
        for journal in self.journals:
            _tell(journal.worker_started, process)

    def note_boot(self, process: IProcess) -> None:
        """`process` has said Hello."""
        for journal in self.journals:
            _tell(journal.worker_ready, process)

    def note_death(
        self,
        record: WorkerRecord,
        death: Death,
        performed: int,
        now: float,
        job: Job | None = None,
    ) -> None:
        """The worker of `record` is gone, after it had begun so many jobs.

        :param job: the job that it ran.
        """
        cause = death.cause
        if cause is Cause.EXITED and record.released:
            cause = Cause.RELEASED
        elif record.booted_at is None and not record.released:
            cause = Cause.FAILED_START
        self.deaths[cause] += 1
        why = f"{death.how}{death.details}"[:MOST_TEXT]
        age = now - record.started_at
        ran = None if job is None else job.id
        gone = Gone(record.process.pid, now, age, performed, record.generation, cause, why, ran)
        self.gone.append(gone)
        for journal in self.journals:
            _tell(journal.worker_gone, gone)


def _tell(call: Callable[[Any], object], subject: object) -> None:
    """Call one who watches; an exception is logged."""
    try:
        call(subject)
    except Exception:  # noqa: BLE001 - who watches must not change what happens
        log_failure("the server failed while it told of a worker")
