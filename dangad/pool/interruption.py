"""How a worker is told to stop its job.

Kept by :mod:`dangad.pool.link`. A box on the worker's stdin names the job and the reason, and a
signal makes the worker read it (:mod:`dangad.worker.pipe`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.pool.containment import contained
from dangad.wire import commands, workerboxes

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.pool.connector import Connector
    from dangad.pool.givenjobs import GivenJobs
    from dangad.pool.killing import Killing
    from dangad.scheduler.record import Job

FIRST_PAUSE = 0.01
"""Seconds until the stop signal is repeated for the first time."""
LONGEST_PAUSE = 0.1
"""The most seconds between two stop signals; each pause before is twice the last."""


class Interruption:
    """Tells one worker to stop its job, again and again until the job has ended.

    A single signal may have no effect: while another is handled, while the main thread waits for a
    lock and the system resumes the wait, or when another thread takes the signal.
    """

    def __init__(
        self,
        clock: IReactorTime,
        connector: Connector,
        given: GivenJobs,
        killing: Killing,
        fault: Callable[[str], None],
    ) -> None:
        """Begin with nothing to tell.

        :param fault: see :meth:`~dangad.pool.containment.Faulty.fault`.
        """
        self.fault = fault
        self._clock = clock
        self._connector = connector
        self._given = given
        self._killing = killing
        #: The call that sends the next signal; None if none is due.
        self._next: IDelayedCall | None = None

    def begin(self, job: Job, why: bytes) -> None:
        """Tell the worker to stop `job`, the last one that it has begun.

        The worker has written the answers to the jobs before; the parent may not have read them.
        """
        self._connector.say(workerboxes.stop(job.id, why))
        self._signal(job, FIRST_PAUSE)

    @contained(None)
    def _signal(self, job: Job, pause: float) -> None:
        self._next = None
        if job in self._given.row and self._killing.reason is None:
            self._connector.signal(commands.STOP_SIGNAL)
            longer = min(2 * pause, LONGEST_PAUSE)
            self._next = self._clock.callLater(pause, self._signal, job, longer)

    def end(self) -> None:
        """Leave no call on the clock: the worker is gone."""
        if self._next is not None:
            self._next.cancel()
