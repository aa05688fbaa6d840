"""The documents about workers: which there are, how the last ones died, and where a job is.

A part of :class:`dangad.operators.view.Operations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import fail

from dangad.errors import NoAnswer, NotRunning
from dangad.host.clock import epoch_of
from dangad.host.descent import cpu_time, state
from dangad.pool.workeroutput import STACK_TIME

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.supervisor import Supervisor
    from dangad.scheduler.workerrecord import WorkerRecord

_STATES = {
    "D": "it waits for a disk or a device",
    "T": "it is stopped, and kill -CONT continues it",
    "t": "a debugger has stopped it",
}
"""Why a process in each of these states does not answer."""


class WorkerViews:
    """What operators see of workers."""

    def __init__(self, clock: IReactorTime, dispatcher: Dispatcher, supervisor: Supervisor) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._supervisor = supervisor

    def workers(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.workers`."""
        now = self._clock.seconds()
        return [
            {
                "pid": record.process.pid,
                "state": record.state.value,
                "generation": record.generation,
                "age": now - record.started_at,
                "jobs": record.process.performed,
                "cpu": cpu_time(record.process.pid) if record.process.pid else None,
                "memory": record.process.memory(),
                "recycling": record.recycling,
                "job": self._running(record, now),
            }
            for record in self._supervisor.records.values()
        ]

    def deaths(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.deaths`."""
        epoch = epoch_of(self._clock)
        return [
            {
                "pid": gone.pid or None,
                "ended": epoch + gone.ended_at,
                "age": gone.age,
                "jobs": gone.jobs,
                "cause": gone.cause.value,
                "why": gone.why,
                "job": gone.job,
            }
            for gone in self._supervisor.history.gone
        ]

    def stack(self, job_id: int) -> Deferred[str]:
        """See :meth:`IOperations.stack`."""
        worker = self._dispatcher.worker_of(job_id)
        if worker is None:
            return fail(NotRunning(f"no job {job_id} is running"))
        pid = worker.pid

        def check(shown: str) -> str:
            if shown:
                return shown
            if self._dispatcher.worker_of(job_id) is not worker:
                raise NotRunning(f"job {job_id} has just ended")
            letter = state(pid)
            why = _STATES.get(letter, "ask again")
            said = f"worker {pid} did not answer within {STACK_TIME:g} s: {why} (state {letter})"
            raise NoAnswer(said)

        return self._supervisor.records[worker].show_stack().addCallback(check)

    def _running(self, record: WorkerRecord, now: float) -> dict[str, Any] | None:
        job = self._dispatcher.job_of(record.process)
        if job is None:
            return None
        return {
            "id": job.id,
            "command": job.name,
            "attempt": job.attempt,
            "runtime": now - job.started_at,
        }
