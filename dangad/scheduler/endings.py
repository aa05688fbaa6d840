"""What ends a job without an answer, and who is told of it.

Kept by :mod:`dangad.scheduler.dispatcher`. A running job is stopped in two steps. First it is
interrupted, so that it can clean up. If it does not end within the grace, its worker is killed. A
killed worker's process and process group are gone before the job's client is told, and before
another worker takes the place.

Law: reclaim before you interrupt. Once a worker's prefetched jobs are reclaimed, only the last job
that it has begun can be running (:mod:`dangad.scheduler.prefetch`).

If telling a client raises, the client is cut off. If speaking to a worker raises, the worker is
killed. Nobody else is affected.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from dangad.scheduler import joblog, reasons
from dangad.scheduler.chores import PART
from dangad.scheduler.outbox import log_failure
from dangad.scheduler.record import END_STATES, Event, JobState
from dangad.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dangad.errors import DangadError
    from dangad.scheduler.alarms import Alarm
    from dangad.scheduler.interfaces import IClient, ISupervisor, IWorker
    from dangad.scheduler.pauses import Pauses
    from dangad.scheduler.prefetch import Prefetch
    from dangad.scheduler.record import Job
    from dangad.scheduler.state import State
    from dangad.scheduler.wariness import Wariness

GRACE = 2.0
"""Seconds that an interrupted job has to clean up before its process is killed."""
ALARMS = ("limit_alarm", "grace_alarm", "rest_alarm", "deadline_alarm")
"""The alarms that a job may have."""
KILL_AGAIN = 1.0
"""Seconds after which a worker that could not be killed is killed again."""
_ENDED = {
    JobState.FAILED: "failed",
    JobState.CANCELLED: "was cancelled",
    JobState.TIMED_OUT: "timed out",
    JobState.LOST: "was lost",
}
"""For each end without an answer, what the log says of the job."""
_SERIOUS = frozenset({"QUEUE_FULL", "NO_WORKERS"})
"""The codes of refusals for which the server lacks something; they are logged as warnings."""


class Endings:
    """Brings jobs to their ends, and stops those that run."""

    prefetch: Prefetch
    pauses: Pauses
    wariness: Wariness
    #: Is told of each worker that is about to die.
    supervisor: ISupervisor | None = None

    def __init__(
        self, state: State, check_drain: Callable[[], object], gone: Callable[[IClient], object]
    ) -> None:
        """End nothing yet.

        :param check_drain: called after everything else when a job has ended during a drain.
        :param gone: called with a client that raised when it was told of a job.
        """
        self._state = state
        self.check_drain = check_drain
        self._gone = gone

    # Jobs that wait, or have no worker any more.

    def end(self, job: Job, error: DangadError, quietly: bool = False) -> None:
        """Bring `job`, which neither waits nor runs any more, to an end without an answer.

        A job that has lost a worker has run: its client never gets an error that says otherwise.
        """
        state = self._state
        error = reasons.as_one_that_ran(job, error)
        job.live(reasons.event_of(error))
        state.counters.note_end(job, state.clock.seconds())
        state.counters.note_reason(job, error.code, str(error))
        cancel_alarms(job)
        if state.counters.log_failed and not quietly:
            self.log(
                self._level_of(error),
                error.code.decode("ascii", "replace"),
                job.asker,
                "job {job} {command} {ended}: {error}",
                **joblog.fields_of_end(job),
                ended=_ENDED[job.state],
                error=str(error),
            )
        client, job.client = job.client, None
        if client is not None and client not in state.gone:
            state.outbox.put(self.tell_end, client, job, error)
        if state.draining:
            state.outbox.last = self.check_drain

    def end_broken(self, job: Job) -> None:
        """End `job`, wherever it is: the server failed in the middle of an event."""
        text = "the server failed while it dealt with job {job} {command}"
        log_failure(text, **joblog.fields_of(job))
        error = reasons.broken(job)
        worker = job.worker or self._state.assignments.worker_of(job)
        if worker is not None:
            job.stopped_for = job.stopped_for or error
            self.kill(worker, f"was killed: {error}", job)
        elif job.state not in END_STATES:
            self._state.queue.remove(job)
            self.end(job, error)

    def end_all(self, jobs: Iterable[Job], error: DangadError) -> None:
        """End `jobs`, which were taken out of the queue, without a line in the log for each."""
        for job in jobs:
            try:
                self.end(job, error, quietly=True)
            except Exception:  # noqa: BLE001 - each of them must end
                self.end_broken(job)

    def end_waiting(self, error: DangadError, still: Callable[[], bool]) -> None:
        """End all waiting jobs, a part in each turn of the reactor, while `still` returns True."""
        self.prefetch.reclaim_all()
        self._state.outbox.put(self._state.chores.begin, partial(self._end_some, error, still))

    def _end_some(self, error: DangadError, still: Callable[[], bool]) -> bool:
        """End some waiting jobs; whether any are left."""
        if not still():
            return False
        queue = self._state.queue
        jobs = list(islice(queue, PART))
        for job in jobs:
            queue.remove(job)
        self._end_taken(jobs, error)
        return bool(queue)

    def _end_taken(self, jobs: list[Job], error: DangadError) -> None:
        """End `jobs`, which were taken out of the queue, with one line in the log for all."""
        self.end_all(jobs, error)
        if jobs:
            text = "{jobs} ended: {error}"
            number = counted(len(jobs), "waiting job")
            self.log(self._level_of(error), "all", "", text, jobs=number, error=str(error))
        self._state.tell()

    def end_isolated(self, error: DangadError, still: Callable[[], bool]) -> None:
        """Like `end_waiting`, for the jobs that need a worker which has had none."""
        jobs = iter([job for job in self._state.queue if job.policy.isolate])
        self._state.outbox.put(
            self._state.chores.begin, partial(self._end_part, jobs, error, still)
        )

    def _end_part(self, jobs: Iterator[Job], error: DangadError, still: Callable[[], bool]) -> bool:
        """End some of `jobs`, as far as they wait; whether any are left."""
        part = list(islice(jobs, PART)) if still() else []
        self._end_taken([job for job in part if self._state.queue.remove(job)], error)
        return len(part) == PART

    def end_those_of(self, client: IClient) -> None:
        """End the waiting jobs of `client`, which is gone, a part in each turn of the reactor."""
        self._state.chores.begin(partial(self._end_some_of, client))

    def _end_some_of(self, client: IClient) -> bool:
        """End some waiting jobs of `client`; whether any may be left."""
        jobs = self._state.queue.drop(client, PART)
        self.end_all(jobs, reasons.client_left())
        if jobs:
            self.log(
                self._state.quiet.info,
                "gone",
                client.name,
                "{jobs} of a client that disconnected ended: {client}",
                jobs=counted(len(jobs), "waiting job"),
                client=client.name,
            )
        more = len(jobs) >= PART
        if not more:  # forgotten only after all ends were told
            self._state.outbox.put(self._state.gone.discard, client)
        self._state.tell()
        return more

    # Jobs that run.

    def take_out(self, job: Job) -> bool:
        """Take `job` out of the queue, reclaimed if necessary; False if a worker has begun it."""
        self.prefetch.reclaim(job.worker)
        return job.worker is None and self._state.queue.remove(job)

    def cancel(
        self,
        job: Job,
        while_waiting: Callable[[Job], DangadError],
        while_running: Callable[[Job, float], DangadError],
    ) -> None:
        """End `job` if it has not ended: at once if it waits, by stopping it if it runs.

        :param while_waiting: makes the error of a job that waits.
        :param while_running: makes the error of a job that has run for so many seconds.
        """
        if self.take_out(job):
            self.end(job, while_waiting(job))
        else:
            self.stop(job, while_running(job, self.ran(job)), b"cancelled")
        self._state.tell()

    def stop(self, job: Job, error: DangadError, why: bytes) -> None:
        """Stop `job`, which runs: it ends with `error`, by itself or when the grace is over.

        The prefetched jobs of its worker must have been reclaimed before.
        """
        worker = job.worker
        if worker is None or job.stopped_for is not None:
            return
        assignments = self._state.assignments
        if assignments.last(worker) is not job:
            job.forget_request()  # it has answered: even if the answer is lost, it is not retried
            return
        job.stopped_for = error
        cancel_alarms(job, ("limit_alarm",))
        if worker in assignments.doomed:
            return  # it is being killed already
        self.wariness.charge(job, worker)
        job.grace_alarm = self.set_alarm(job, GRACE, self._grace_is_over)
        if job.grace_alarm is None:
            self.kill(worker, f"was killed: {error}", job)
            return
        try:
            worker.resume()
            self.pauses.resume(job)
            worker.interrupt(job, why)
            if self.supervisor is not None and not job.policy.stoppable:
                self.supervisor.worker_doomed(worker)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
            self.worker_failed(worker, job)

    def stop_without_limit(self, job: Job) -> None:
        """Stop `job`: no alarm could be set for its time limit."""
        self.prefetch.reclaim(job.worker)
        self.stop(job, reasons.broken(job), b"cancelled")

    def stop_unread(self, job: Job, seconds: float) -> None:
        """Stop `job`: its client does not read, and it keeps its worker from others."""
        self.prefetch.reclaim(job.worker)
        self.stop(job, reasons.not_read(job, seconds), b"cancelled")
        self._state.tell()

    def stop_all(self, error: DangadError) -> None:
        """Stop all running jobs at once, without grace."""
        self.prefetch.reclaim_all()
        for worker, row in list(self._state.assignments.jobs.items()):
            last = row[-1]  # the jobs before it have answered
            last.stopped_for = last.stopped_for or error
            self.kill(worker, f"was killed: {error}", row[0])

    def deadline_passed(self, job: Job) -> None:
        """The deadline of `job` has passed."""
        job.deadline_alarm = None
        if self.take_out(job):
            self.end(job, reasons.waited_too_long(job))
        else:
            self.stop(job, reasons.reached_deadline(job, self.ran(job)), b"time")
        self._state.tell()

    def time_is_up(self, job: Job) -> None:
        """The time limit of `job` is over."""
        job.limit_alarm = None
        self.prefetch.reclaim(job.worker)
        self.stop(job, reasons.ran_too_long(job, self.ran(job)), b"time")
        self._state.tell()

    def _grace_is_over(self, job: Job) -> None:
        job.grace_alarm = None
        if job.worker is not None:
            self.kill(job.worker, f"was killed: {job.stopped_for}", job)

    def ran(self, job: Job) -> float:
        """How long `job` has run; 0 if its worker has only just begun it."""
        if job.state is not JobState.RUNNING:
            return 0.0
        return self._state.clock.seconds() - job.started_at

    def set_deadline(self, job: Job, seconds: float) -> DangadError | None:
        """End `job` after so many seconds. Returns the error if no alarm can be set, else None."""
        job.deadline_alarm = self.set_alarm(job, seconds, self.deadline_passed)
        return reasons.broken(job) if job.deadline_alarm is None else None

    def set_alarm(self, job: Job, delay: float, call: Callable[[Job], object]) -> Alarm | None:
        """An alarm of `job`; None if the clock cannot set one."""
        try:
            return self._state.alarms.set(delay, call, job)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one job
            text = "job {job} {command}: no alarm can be set"
            log_failure(text, **joblog.fields_of(job))
            return None

    # Clients that cannot be told, and workers that cannot be spoken to.

    def log(
        self, say: Callable[..., object], kind: str, asker: str, text: str, **fields: object
    ) -> None:
        """Write to the log once the event's state is whole, or only count if `kind` is frequent.

        :param say: the method of the quiet log for the line's level.
        """
        self._state.outbox.put(partial(say, kind, asker, text, **fields))

    def _level_of(self, error: DangadError) -> Callable[..., object]:
        """What logs the end of jobs with `error`: a warning if they failed."""
        quiet = self._state.quiet
        return quiet.info if reasons.event_of(error) is Event.CANCEL else quiet.warn

    def refuse(self, client: IClient, job: Job, refusal: DangadError) -> None:
        """Tell `client` that `job` is not accepted."""
        self._state.counters.note_refusal(job, refusal)
        if self._state.counters.log_failed:
            self._log_refusal(client.name, job, refusal)
        self.tell_end(client, job, refusal)
        self._state.tell()

    def _log_refusal(self, asker: str, job: Job, refusal: DangadError) -> None:
        """Log that `job` is not accepted. In a flood of refusals most are only counted."""
        quiet, code = self._state.quiet, refusal.code.decode("ascii", "replace")
        kind = f"refused: {code}"
        if quiet.count(kind, asker):
            return
        self.log(
            quiet.warn if code in _SERIOUS else quiet.info,
            kind,
            asker,
            "job {job} {command} was refused: {reason}",
            job=job.id,
            command=job.name,
            client=asker,
            worker=None,
            code=code,
            reason=str(refusal),
        )

    def tell_end(self, client: IClient, job: Job, error: DangadError) -> None:
        """Tell `client` that `job` ended with `error`."""
        if client in self._state.gone:
            return  # it has gone while it was told of another job
        try:
            client.fail(job, error)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one client
            self.client_failed(client, job)

    def client_failed(self, client: IClient, job: Job) -> None:
        """Cut off `client`, which raised when it was told of `job`."""
        text = "job {job} {command}: its client could not be told, and is cut off"
        log_failure(text, **joblog.fields_of(job))
        self._state.outbox.put(client.abort)
        self._state.outbox.put(self._gone, client)
        self._state.tell()

    def worker_failed(self, worker: IWorker, job: Job) -> None:
        """Kill `worker`, which raised when it was asked to do something about `job`."""
        text = "job {job} {command}: its worker could not be spoken to, and is killed"
        log_failure(text, **joblog.fields_of(job))
        self.kill(worker, "was killed: the server failed while it spoke to it", job)

    def resume(self, worker: IWorker, job: Job) -> None:
        """Let `worker`, which runs `job`, go on if it was paused."""
        try:
            worker.resume()
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
            self.worker_failed(worker, job)
        self.pauses.resume(job)

    def kill(self, worker: IWorker, reason: str, job: Job) -> None:
        """Kill `worker` because of `job`; if this fails, try again later."""
        self._state.assignments.remove_idle(worker)
        self._state.assignments.doomed[worker] = reason
        try:
            worker.kill(reason)
        except Exception:  # noqa: BLE001 - otherwise it might hold its job for ever
            text = "job {job} {command}: its worker could not be killed"
            log_failure(text, **joblog.fields_of(job))
            self.set_alarm(job, KILL_AGAIN, partial(self._kill_again, worker))

    def _kill_again(self, worker: IWorker, job: Job) -> None:
        doomed = self._state.assignments.doomed
        if worker in doomed:
            self.kill(worker, doomed[worker], job)


def cancel_alarms(job: Job, names: tuple[str, ...] = ALARMS) -> None:
    """Cancel these alarms of `job`."""
    for name in names:
        alarm = getattr(job, name)
        if alarm is not None:
            alarm.cancel()
            setattr(job, name, None)
