"""What a worker's answer, its news and its death mean for its jobs.

Kept by :mod:`dangad.scheduler.dispatcher`. After an answer the worker gets its next job before the
client is told. So the worker is not idle for longer than necessary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from dangad.errors import DeadlinePassed
from dangad.scheduler import reasons
from dangad.scheduler.endings import cancel_alarms
from dangad.scheduler.interfaces import IJobEvents
from dangad.scheduler.record import Event
from dangad.wire import boxes

if TYPE_CHECKING:
    from dangad.scheduler.endings import Endings
    from dangad.scheduler.interfaces import IWorker
    from dangad.scheduler.matching import Matching
    from dangad.scheduler.pauses import Pauses
    from dangad.scheduler.record import Death, Job
    from dangad.scheduler.retries import Retries
    from dangad.scheduler.state import State


@implementer(IJobEvents)
class Answers:
    """Takes the answers and the news of workers, and the jobs of workers that die."""

    def __init__(
        self, state: State, endings: Endings, matching: Matching, retries: Retries, pauses: Pauses
    ) -> None:
        self._state = state
        self._clock = state.clock
        self._endings = endings
        self._matching = matching
        self._prefetch = endings.prefetch
        self._retries = retries
        self._pauses = pauses

    def job_reported(self, worker: IWorker, body: bytes | memoryview, parts: bool) -> None:
        """See :meth:`IJobEvents.job_reported`."""
        job = self._state.assignments.jobs[worker][0]
        client = job.client
        if client is None or job.stopped_for is not None:
            return
        if parts:
            job.forget_request()  # a second attempt would send the parts twice
            if self._pauses:
                self._pauses.sent(job, len(body))
        try:
            client.report(job, body, parts)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one client
            self._endings.client_failed(client, job)

    def job_finished(
        self,
        worker: IWorker,
        failed: bool,
        body: bytes | memoryview,
        usage: bytes = b"",
        *,
        reusable: bool = True,
        printed: bool = False,
    ) -> None:
        """See :meth:`IJobEvents.job_finished`."""
        state, now = self._state, self._clock.seconds()
        job = state.assignments.jobs[worker][0]
        if job.stopped_for is not None:
            if job.policy.stoppable and body == boxes.END:
                self._stopped(worker, job, usage, reusable, now)
            else:
                self._endings.kill(worker, f"was stopped: {job.stopped_for}", job)
            return
        if not reusable:
            self._prefetch.reclaim(worker)
        begun = state.assignments.next_of(worker)
        released = False
        try:
            job.live(Event.FAIL if failed else Event.ANSWER)
            job.usage = usage
            self._matching.ended(job)
            state.counters.note_end(job, now)
            if job.deadline is not None:
                state.run_times.note(job.command, now - job.started_at, now)
            if job.limit_alarm is not None or job.deadline_alarm is not None:
                cancel_alarms(job)
            if state.quarantine.suspects:
                state.quarantine.succeeded(job.command)
            self._prefetch.note(job, printed)
            released = self._go_on(worker, begun, reusable, now)
        except Exception:  # noqa: BLE001 - the job has ended, and its client is to be told
            self._endings.worker_failed(worker, job)
        client, job.client = job.client, None
        if client is not None:
            client.was_served = True
            try:
                client.deliver(job, failed, body)
            except Exception:  # noqa: BLE001 - whatever it was, it concerns one client
                self._endings.client_failed(client, job)
        if failed or released or state.draining:
            self._note_more(worker, job, bytes(body) if failed else None, released)
        if state.outbox.calls or state.outbox.last is not None:
            state.outbox.send()

    def _stopped(self, worker: IWorker, job: Job, usage: bytes, reusable: bool, now: float) -> None:
        """`job`, which was being stopped, has ended by itself, and `worker` goes on."""
        assert job.stopped_for is not None
        begun = self._state.assignments.next_of(worker)
        job.usage = usage
        self._matching.ended(job)
        cancel_alarms(job)
        if job.deadline is not None:
            self._state.run_times.note(job.command, now - job.started_at, now, stopped=True)
        released = False
        if reusable:
            self._matching.wariness.forgive(worker)
        try:
            self._endings.end(job, job.stopped_for)
            released = self._go_on(worker, begun, reusable, now)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
            self._endings.worker_failed(worker, job)
        if released:
            self._release(worker, job)
        self._state.tell()

    def _go_on(self, worker: IWorker, begun: Job | None, reusable: bool, now: float) -> bool:
        """Let `worker`, which has ended a job, go on with the job that it has `begun`, or be idle.

        Jobs that may start now start, on any worker. True if `worker` is to be released instead.
        """
        assignments, released = self._state.assignments, False
        if begun is not None:
            self._matching.note_start(begun, worker, now)
        elif not reusable or worker in assignments.called_back or worker in assignments.doomed:
            released = True
        else:
            assignments.idle[worker] = now
        if assignments.prefetched and self._state.queue.news is not None:
            self._prefetch.reclaim_outranked()
        if assignments.idle:
            self._matching.give_work(now)
        if worker in assignments.jobs or assignments.prefetched:
            self._matching.prefetch(worker, now)
        return released

    def _note_more(self, worker: IWorker, job: Job, error: bytes | None, released: bool) -> None:
        """Note what need not be noted of most jobs that have ended.

        :param error: the error box that answered the job; None if it had a result.
        :param released: whether its worker is to be released.
        """
        counters = self._state.counters
        if error is not None:
            pairs = boxes.unpack(error)
            text = pairs.get(boxes.ERROR_DESCRIPTION, b"").decode("utf-8", "replace")
            counters.note_reason(job, pairs.get(boxes.ERROR_CODE, b"UNKNOWN"), text)
        if released:
            self._release(worker, job)
        if self._state.draining:
            self._state.outbox.last = self._endings.check_drain

    def _release(self, worker: IWorker, job: Job) -> None:
        """Hand `worker`, whose last job was `job`, over to the supervisor."""
        if worker in self._state.assignments.called_back:
            self._state.assignments.called_back = ()
        if self._matching.supervisor is not None:
            try:
                self._matching.supervisor.worker_released(worker)
            except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
                self._endings.worker_failed(worker, job)

    def worker_gone(self, worker: IWorker, death: Death) -> None:
        """`worker` is dead, and its process group with it."""
        assignments, now = self._state.assignments, self._clock.seconds()
        assignments.remove_idle(worker)
        assignments.doomed.pop(worker, None)
        assignments.unused.discard(worker)
        self._prefetch.reclaim(worker)
        lost = self._matching.take_from(worker, now)
        self._prefetch.reclaim_all()
        changed = self._state.registry.leave(worker)
        self._state.lanes.idle_changed()
        for number, job in enumerate(lost):
            if changed:
                job.policy = self._state.registry.policy(job.command)
            try:
                self._lose(job, worker, death, now, running=number == 0)
            except Exception:  # noqa: BLE001 - each of them must end
                self._endings.end_broken(job)
        self._matching.wariness.gone(worker)
        if changed:
            self._matching.review()
        self._matching.give_work(now)

    def _lose(self, job: Job, worker: IWorker, death: Death, now: float, running: bool) -> None:
        """End `job`, which `worker` had begun when it died, or let it be tried again.

        :param running: whether `job` was the first whose answer the parent had not read.
        """
        if running and not death.unread:
            self._matching.wariness.charge(job, worker)
        self._matching.ended(job)
        cancel_alarms(job, ("limit_alarm", "grace_alarm"))
        job.usage = death.usage
        if job.stopped_for is not None:
            if job.deadline is not None and isinstance(job.stopped_for, DeadlinePassed):
                self._state.run_times.note(job.command, now - job.started_at, now, stopped=True)
            self._endings.end(job, job.stopped_for)
        elif death.unread and running and job.client is not None:
            self._matching.return_unread(job, death.unread)
        else:
            error = reasons.lost(job, worker.pid, death, now - job.started_at)
            self._retries.lost(job, error, now, blamed=running)
