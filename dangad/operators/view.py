"""What operators can see and do: one object that speaks for all parts of the server.

Made by :mod:`dangad.service` and called by :mod:`dangad.operators.control`.
"""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import fail
from zope.interface import implementer

from dangad.errors import NoAnswer, NotRunning, ShuttingDown
from dangad.host.capacity import TooManyWorkers, check_workers
from dangad.host.descent import state
from dangad.options.configfile import Configuration
from dangad.pool.workeroutput import STACK_TIME
from dangad.scheduler.interfaces import IOperations

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.record import Job
    from dangad.scheduler.supervisor import Supervisor
    from dangad.scheduler.workerrecord import WorkerRecord
    from dangad.server.factory import ClientFactory

_STATES = {
    "D": "it waits for a disk or a device",
    "T": "it is stopped, and kill -CONT continues it",
    "t": "a debugger has stopped it",
}
"""Why a process in each of these states does not answer."""
_STOPPING = "the server is stopping"
"""The text of the error for orders about workers during a stop."""


@implementer(IOperations)
class Operations:
    """See :class:`IOperations`, which defines each document.

    It has no mutable state of its own: everything is read from the parts. Only the configuration is
    set later, once, by :mod:`dangad.tap`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        dispatcher: Dispatcher,
        supervisor: Supervisor,
        clients: ClientFactory,
        stop: Callable[[], object],
    ) -> None:
        """Speak for these parts.

        :param stop: begins the orderly shutdown of the server.
        """
        self._clock = clock
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        self._clients = clients
        self._stop = stop
        self._began = clock.seconds()
        self._version = version("dangad")  # this reads files: only before the server runs
        #: The options with which the server was started.
        self.configuration = Configuration()

    def status(self) -> dict[str, Any]:
        """See :meth:`IOperations.status`."""
        dispatcher, supervisor = self._dispatcher, self._supervisor
        states = [record.state.value for record in supervisor.records.values()]
        counters = dispatcher.counters
        return {
            "version": self._version,
            "pid": os.getpid(),
            "uptime": self._clock.seconds() - self._began,
            "state": "draining" if dispatcher.draining else "running",
            "no_workers": dispatcher.state.no_workers
            or dispatcher.state.no_unused
            or supervisor.failing.why,
            "generation": supervisor.reloading.generation,
            "reload": {
                "state": supervisor.reloading.state.value,
                "reason": supervisor.reloading.reason,
            },
            "workers": {
                "min": supervisor.min_workers,
                "max": supervisor.max_workers,
                "spare": supervisor.spare_workers,
                **{name: states.count(name) for name in ("starting", "idle", "busy", "stopping")},
            },
            "jobs": {
                "waiting": dispatcher.waiting,
                "running": dispatcher.running,
                "accepted": counters.accepted,
                "refused": counters.refused,
                **self._ends(),
            },
            "quarantine": [
                {"command": command.decode("ascii", "replace"), "seconds": seconds}
                for command, seconds in dispatcher.kept_away().items()
            ],
            "connections": self._clients.connections,
        }

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
                "memory": record.process.memory(),
                "recycling": record.recycling,
                "job": self._running(record, now),
            }
            for record in self._supervisor.records.values()
        ]

    def recent(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.recent`."""
        now, clock = time.time(), self._clock.seconds()  # people read the wall clock
        return [_usage(job, now - clock) for job in self._dispatcher.counters.recent]

    def config(self) -> dict[str, Any]:
        """See :meth:`IOperations.config`."""
        supervisor = self._supervisor
        now: dict[str, Any] = {
            "min-workers": supervisor.min_workers,
            "max-workers": supervisor.max_workers,
            "spare-workers": min(supervisor.spare_workers, supervisor.max_workers),
        }
        try:
            check_workers(supervisor.max_workers)
        except TooManyWorkers:  # `scale` was forced, and so must be a start with this number
            now["force"] = True
        return self.configuration.document(now)

    def pardon(self, command: str) -> bool:
        """See :meth:`IOperations.pardon`."""
        return self._dispatcher.pardon(command.encode("ascii", "replace"))

    def scale(self, min_workers: int, max_workers: int, force: bool = False) -> None:
        """See :meth:`IOperations.scale`."""
        if self._dispatcher.draining:
            raise ShuttingDown(_STOPPING)
        check_workers(max_workers, self._memory_of_one(), force)
        self._supervisor.scale(min_workers, max_workers)

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

    def reload(self) -> Deferred[None]:
        """See :meth:`IOperations.reload`."""
        if self._dispatcher.draining:
            return fail(ShuttingDown(_STOPPING))
        return self._supervisor.reload()

    def drain(self) -> Deferred[dict[str, int]]:
        """See :meth:`IOperations.drain`."""
        ended = self._dispatcher.when_drained()
        self._stop()
        return ended.addCallback(lambda _: self._ends())

    def _memory_of_one(self) -> int:
        """The bytes of memory of the oldest ready worker, as an estimate; 0 if there is none."""
        oldest = next(
            (record for record in self._supervisor.records.values() if record.serves), None
        )
        return oldest.process.memory() if oldest is not None else 0

    def _ends(self) -> dict[str, int]:
        ended = self._dispatcher.counters.ended
        return {state.value.replace(" ", "_"): ended[state] for state in ended}

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


def _usage(job: Job, epoch: float) -> dict[str, Any]:
    """The entry of `recent` for a job that has ended.

    :param epoch: the Unix time at which the dispatcher's clock was at 0.
    """
    took = job.took
    return {
        "id": job.id,
        "command": job.name,
        "state": job.state.value,
        "worker": job.pid or None,
        "attempt": job.attempt,
        "wait": job.wait,
        "runtime": job.runtime,
        "cpu": took.cpu if took else None,
        "peak_memory": (took.peak_memory or None) if took else None,
        "ended": epoch + job.ended_at,
        "client": job.asker,
        "error": None if job.ended_for is None else "{}: {}".format(*job.ended_for),
    }
