"""How a worker is told that its job is to stop.

Kept by :mod:`dangad.pool.link`. Which job and why is written to the worker's stdin, and a signal
has it look there (:mod:`dangad.worker.child`).
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
"""Seconds after which the signal that a job is to stop is repeated the first time."""
LONGEST_PAUSE = 0.1
"""Seconds between two such signals at most; until then each pause is twice the last."""


class Interruption:
    """Tells one worker to stop its job, again and again until the job has ended.

    A signal may be lost on a worker: if another is just being handled, the system goes on with a
    wait for a lock, or another thread takes the signal.
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
        #: The next signal; None if there is none to come.
        self._next: IDelayedCall | None = None

    def begin(self, job: Job, why: bytes) -> None:
        """Tell the worker to stop `job`, the last that it has begun.

        The answers to the jobs before it are written, and may not be read yet.
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
        """Have nothing left on the clock: the worker is gone."""
        if self._next is not None:
            self._next.cancel()
