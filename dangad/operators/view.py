"""What operators may see and do: a view over all parts of the server.

Made by :mod:`dangad.service`, asked by :mod:`dangad.operators.control`.
"""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import fail
from zope.interface import implementer

from dangad.errors import NotRunning
from dangad.host.capacity import check_workers
from dangad.scheduler.interfaces import IOperations

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.record import Job
    from dangad.scheduler.supervisor import Workforce
    from dangad.scheduler.workerrecord import Life
    from dangad.server.factory import ClientFactory


@implementer(IOperations)
class Operations:
    """See :class:`IOperations`, which says what each document has.

    All mutable state is that of the parts.
    """

    def __init__(
        self,
        clock: IReactorTime,
        dispatcher: Dispatcher,
        workforce: Workforce,
        clients: ClientFactory,
        stop: Callable[[], object],
    ) -> None:
        """Look at these parts.

        :param stop: begins the orderly end of the server.
        """
        self._clock = clock
        self._dispatcher = dispatcher
        self._workforce = workforce
        self._clients = clients
        self._stop = stop
        self._began = clock.seconds()
        self._version = version("dangad")  # from files, which is not for a running server to read

    def status(self) -> dict[str, Any]:
        """See :meth:`IOperations.status`."""
        dispatcher, workforce = self._dispatcher, self._workforce
        states = [self._state(life) for life in workforce.lives.values()]
        tally = dispatcher.tally
        return {
            "version": self._version,
            "pid": os.getpid(),
            "uptime": self._clock.seconds() - self._began,
            "state": "draining" if dispatcher.draining else "running",
            "no_workers": dispatcher.no_workers_because,
            "generation": workforce.reloading.generation,
            "reload": {
                "state": workforce.reloading.state.value,
                "reason": workforce.reloading.reason,
            },
            "workers": {
                "min": workforce.min_workers,
                "max": workforce.max_workers,
                "spare": workforce.spare_workers,
                **{name: states.count(name) for name in ("starting", "idle", "busy", "stopping")},
            },
            "jobs": {
                "waiting": dispatcher.waiting,
                "running": dispatcher.running,
                "accepted": tally.accepted,
                "refused": tally.refused,
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
                "pid": life.process.pid,
                "state": self._state(life),
                "generation": life.generation,
                "age": now - life.started_at,
                "jobs": life.process.performed,
                "memory": life.process.memory(),
                "due": life.due,
                "job": self._running(life, now),
            }
            for life in self._workforce.lives.values()
        ]

    def recent(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.recent`."""
        now, clock = time.time(), self._clock.seconds()  # people read the end by their clock
        return [_receipt(job, now - clock) for job in self._dispatcher.tally.recent]

    def pardon(self, command: str) -> bool:
        """See :meth:`IOperations.pardon`."""
        return self._dispatcher.pardon(command.encode("ascii", "replace"))

    def want(self, min_workers: int, max_workers: int, force: bool = False) -> None:
        """See :meth:`IOperations.want`."""
        check_workers(max_workers, self._memory_of_one(), force)
        self._workforce.want(min_workers, max_workers)

    def stack(self, job_id: int) -> Deferred[str]:
        """See :meth:`IOperations.stack`."""
        worker = self._dispatcher.worker_of(job_id)
        if worker is None:
            return fail(NotRunning(f"no job {job_id} is running"))
        return worker.show_stack()

    def reload(self) -> Deferred[None]:
        """See :meth:`IOperations.reload`."""
        return self._workforce.reload()

    def drain(self) -> Deferred[dict[str, int]]:
        """See :meth:`IOperations.drain`."""
        ended = self._dispatcher.when_drained()
        self._stop()
        return ended.addCallback(lambda _: self._ends())

    def _memory_of_one(self) -> int:
        """The bytes that a worker takes, as far as the oldest shows; 0 if there is none."""
        oldest = next((life for life in self._workforce.lives.values() if life.serves), None)
        return oldest.process.memory() if oldest is not None else 0

    def _ends(self) -> dict[str, int]:
        ended = self._dispatcher.tally.ended
        return {state.value.replace(" ", "_"): ended[state] for state in ended}

    def _state(self, life: Life) -> str:
        if life.stopping:
            return "stopping"
        if life.booted_at is None:
            return "starting"
        return "idle" if self._dispatcher.is_idle(life.process) else "busy"

    def _running(self, life: Life, now: float) -> dict[str, Any] | None:
        job = self._dispatcher.job_of(life.process)
        if job is None:
            return None
        return {
            "id": job.id,
            "command": job.name,
            "attempt": job.attempt,
            "runtime": now - job.started_at,
        }


def _receipt(job: Job, epoch: float) -> dict[str, Any]:
    """What is told of a job that has ended.

    :param epoch: when the dispatcher's clock was at 0, by the clock on the wall.
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
