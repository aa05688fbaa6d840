"""What becomes of a job whose worker has died: another attempt after a rest, or its end.

Kept by :mod:`dangad.scheduler.dispatcher`. A job is tried again only if the policy of its type
allows it, and if its client has had no part of the result yet.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dangad.scheduler import joblog, reasons
from dangad.scheduler.record import Attempt, Event
from dangad.scheduler.state import log

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from dangad.errors import WorkerLost
    from dangad.scheduler.endings import Endings
    from dangad.scheduler.record import Job
    from dangad.scheduler.state import State

FIRST_RETRY = 0.1
"""Seconds of rest before the second attempt; each further rest is twice the last."""
LONGEST_RETRY = 10.0
"""The most seconds of rest, before it is multiplied by the jitter, which is between 0.5 and 1.5."""


class Retries:
    """Decides on another attempt, and lets the job rest before it."""

    def __init__(
        self,
        state: State,
        endings: Endings,
        rested: Callable[[Job], object],
        chance: random.Random,
    ) -> None:
        """Begin with no job that rests.

        :param rested: called with a job that has rested and may wait for a worker again.
        :param chance: where the jitter comes from.
        """
        self._state = state
        self._endings = endings
        self._rested = rested
        self._chance = chance

    def lost(self, job: Job, error: WorkerLost, now: float, blamed: bool) -> None:
        """Try `job`, whose worker died, again if this is allowed; otherwise end it.

        :param blamed: whether the death counts against the job's command.
        """
        state = self._state
        job.lost_for = error
        quarantined = blamed and state.quarantine.worker_lost(job.command, now)
        seconds = state.quarantine.seconds_left(job.command, now)
        if quarantined:
            text = (
                "{command} is quarantined for {seconds:.0f} s: it has killed too many workers in a "
                "row (--quarantine-after); the last: {error}"
            )
            state.outbox.put(
                partial(log.warn, text, **joblog.fields_of(job), seconds=seconds, error=str(error))
            )
        if job.attempt > job.policy.retries or not job.may_retry or job.client is None:
            self._endings.end(job, error)
        elif quarantined:
            self._endings.end(job, reasons.quarantined(job, seconds))
        else:
            self._rest(job, error)

    def _rest(self, job: Job, error: WorkerLost) -> None:
        """Let `job` rest before its next attempt."""
        state = self._state
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(job.attempt - 1, 30))
        delay *= self._chance.uniform(0.5, 1.5)
        job.rest_alarm = self._endings.set_alarm(job, delay, self._rested)
        if job.rest_alarm is None:
            self._endings.end(job, error)
            return
        job.live(Event.RETRY)
        job.attempts += (Attempt(job.started_at, job.pid, str(error)),)
        state.queue.rest(job)
        for journal in state.counters.journals:
            state.outbox.put(journal.job_retried, job, error)
        if not state.counters.log_failed:
            return
        fields = joblog.fields_of(job)
        self._endings.log(
            state.quiet.info,
            "retry",
            fields["client"],
            "job {job} {command} is tried again in {delay:.1f} s: attempt {attempt}: {error}",
            **fields,
            delay=delay,
            attempt=job.attempt,
            error=str(error),
        )
