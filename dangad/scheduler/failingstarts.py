"""Starts of workers that fail: when the next start is tried, and when jobs wait in vain.

Kept by :mod:`dangad.scheduler.supervisor`. A start has failed if the worker dies before it says
Hello, or soon afterwards without having done a job. If starts fail one after another, the next is
tried after a delay. The delay doubles from a tenth of a second to half a minute. So a server whose
workers cannot start costs little, and recovers by itself. If no worker could be started for
`PATIENCE` seconds, jobs wait in vain: the dispatcher is told why. If there are others that have had
jobs, only those jobs wait in vain that need a worker which has had none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.internet import backoffPolicy
from twisted.logger import Logger

from dangad.scheduler.clockcalls import call_later, cancel
from dangad.scheduler.outbox import log_failure
from dangad.text import worker_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.interfaces import IWorker
    from dangad.scheduler.record import Death
    from dangad.scheduler.workerrecord import WorkerRecord

log = Logger()

FIRST_DELAY = 0.1
"""Seconds of delay after the second failure in a row; each further delay is twice the last."""
LONGEST_DELAY = 30.0
"""The most seconds between two starts, however often they fail."""
PATIENCE = 10.0
"""Seconds for which jobs wait for a first worker while starts fail."""
PROBATION = 5.0
"""Seconds after its Hello from which on the start of a worker was good, even without a job."""


class FailingStarts:
    """The starts that have failed since the last good one.

    Failures that come while the next start is already put off do not count.
    """

    def __init__(
        self,
        clock: IReactorTime,
        records: Mapping[IWorker, WorkerRecord],
        try_again: Callable[[], object],
        dispatcher: Dispatcher,
    ) -> None:
        """Begin with no failed start.

        :param records: the workers that live.
        :param try_again: called when the next start may be tried.
        :param dispatcher: told the reason if no worker could be started for `PATIENCE` seconds.
        """
        self._clock = clock
        self._records = records
        self._try_again = try_again
        self._dispatcher = dispatcher
        self._delay = backoffPolicy(FIRST_DELAY, LONGEST_DELAY, factor=2, jitter=lambda: 0.0)
        #: How many starts have failed in a row.
        self._count = 0
        #: When the last start failed.
        self._failed_at = 0.0
        #: Why the last start failed; empty if a worker has booted since.
        self._reason = ""
        #: The next try; None if a worker may be started now.
        self._retry: IDelayedCall | None = None
        #: The end of the patience of jobs that wait for a first worker.
        self._alarm: IDelayedCall | None = None

    @property
    def resting(self) -> bool:
        """Whether the next start is put off."""
        return self._retry is not None

    @property
    def any_serves(self) -> bool:
        """Whether there is a worker that has booted and was not released."""
        return any(record.serves for record in self._records.values())

    @property
    def why(self) -> str | None:
        """Why there is no worker that serves; None if there is one, or if no start has failed."""
        return None if self.any_serves else self._reason or None

    def reason(self, record: WorkerRecord, death: Death, performed: int) -> str | None:
        """Why the start of a worker that is dead has failed; None if its start was good.

        :param performed: how many jobs the worker has begun.
        """
        told = f"{worker_name(record.process.pid)} {death.how}"
        if record.booted_at is None:
            return told
        if not performed and self._clock.seconds() - record.booted_at < PROBATION:
            return f"{told} as soon as it was ready"
        return None

    def failed(self, reason: str) -> None:
        """A start has failed: put the next one off."""
        self._reason = reason
        if self._alarm is None and (not self.any_serves or self._dispatcher.lacks_unused):
            self._alarm = call_later(self._clock, PATIENCE, self._lose_patience)
        if self._retry is not None:
            return
        now = self._clock.seconds()
        if self._one_was_good(now):
            self._count = 0
        self._count += 1
        self._failed_at = now
        delay = self._delay(self._count - 2) if self._count > 1 else 0.0
        log.warn(
            "start {failures} in a row failed: {reason}; next try {when}, if one is needed",
            failures=self._count,
            reason=reason,
            when=f"in {delay:.1f} s" if delay else "at once",
        )
        self._retry = call_later(self._clock, delay, self._retry_now)

    def _one_was_good(self, now: float) -> bool:
        """Whether a worker that was started since the last failure is past its probation."""
        last = now - PROBATION
        return any(
            record.booted_at is not None and self._failed_at <= record.booted_at <= last
            for record in self._records.values()
        )

    def booted(self) -> None:
        """A worker has said Hello: jobs no longer wait in vain."""
        cancel(self._alarm)
        self._alarm = None
        self._reason = ""

    def forget(self) -> None:
        """A worker whose start was good has died: count failed starts anew."""
        self._count = 0
        self.retry_at_once()

    def retry_at_once(self) -> None:
        """Put off no start any more."""
        cancel(self._retry)
        self._retry = None

    def stop(self) -> None:
        """Cancel all calls of the clock."""
        self.booted()
        self.retry_at_once()

    def _retry_now(self) -> None:
        self._retry = None
        self._try_again()

    def _lose_patience(self) -> None:
        self._alarm = None
        if self._count and not self.any_serves:
            self._dispatcher.no_workers(self._reason)
        elif self._count and self._dispatcher.lacks_unused:
            self._dispatcher.no_workers(self._reason, unused=True)


def cannot_start(error: Exception) -> str:
    """Why no process could be started, by the exception that is being handled."""
    if isinstance(error, OSError):
        which = f": {error.filename}" if error.filename else ""
        return f"no process can be started: {error.strerror or error}{which}"
    log_failure("the server failed while it started a worker")
    return f"the server failed while it started one: {error!r}"
