"""Ends workers, with more force if they do not obey.

Kept by :mod:`dangad.scheduler.supervisor`, which decides which workers go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.clockcalls import call_later
from dangad.scheduler.outbox import log_failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IReactorTime

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.interfaces import IWorker
    from dangad.scheduler.workerrecord import WorkerRecord

KILL_AGAIN = 1.0
"""Seconds after which a worker that could not be killed is killed again."""


class Dismissal:
    """Ends workers. An exception on the way concerns one worker: it is logged, never raised."""

    def __init__(
        self, clock: IReactorTime, records: Mapping[IWorker, WorkerRecord], dispatcher: Dispatcher
    ) -> None:
        """End nobody yet.

        :param records: the workers that are not known to be dead.
        :param dispatcher: is told to give no more jobs to a worker that goes.
        """
        self._clock = clock
        self._records = records
        self._dispatcher = dispatcher

    def let_go(self, record: WorkerRecord) -> None:
        """Let an idle worker exit."""
        record.released = True
        try:
            record.process.stop()
        except Exception:  # noqa: BLE001 - see the class
            self.failed(record)

    def failed(self, record: WorkerRecord) -> None:
        """Kill a worker that raised; to be called while the exception is handled."""
        log_failure("worker {pid} could not be spoken to, and is killed", pid=record.process.pid)
        self.kill(record, "was killed: the server failed while it spoke to it")

    def kill(self, record: WorkerRecord, reason: str) -> None:
        """Kill a worker that may have a job."""
        self._dispatcher.dismiss(record.process)
        self.end(record, reason)

    def end(self, record: WorkerRecord, reason: str) -> None:
        """Kill a worker that is not gone; if this fails, try again later."""
        if self._records.get(record.process) is not record:
            return
        try:
            record.process.kill(reason)
        except Exception:  # noqa: BLE001 - otherwise it might stay for ever
            log_failure("worker {pid} could not be killed", pid=record.process.pid)
            call_later(self._clock, KILL_AGAIN, self.end, record, reason)

    def end_start(self, record: WorkerRecord, reason: str) -> None:
        """Kill a worker that has not said Hello in time, after it has shown where it is."""
        if record.starting:
            record.show_stack().addBoth(lambda _: self._end_late_start(record, reason))

    def _end_late_start(self, record: WorkerRecord, reason: str) -> None:
        if record.starting:
            self.end(record, reason)
