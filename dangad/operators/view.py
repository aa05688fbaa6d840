"""What operators can see and do: one object that speaks for all parts of the server.

Made by :mod:`dangad.service` and called by :mod:`.control` and :mod:`dangad.web`.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import fail
from zope.interface import implementer

from dangad.errors import ShuttingDown
from dangad.host.capacity import TooManyWorkers, check_workers
from dangad.host.memory import memory_of
from dangad.host.reactorwatch import ReactorWatch
from dangad.limits import check_numbers
from dangad.operators.clientviews import ClientViews
from dangad.operators.commandviews import CommandViews
from dangad.operators.events import Events
from dangad.operators.filters import read_watched
from dangad.operators.handcalls import HandCalls
from dangad.operators.interfaces import IOperations
from dangad.operators.jobviews import JobViews
from dangad.operators.parts import Parts
from dangad.operators.rates import Rates
from dangad.operators.workerviews import WorkerViews
from dangad.options.configfile import Configuration
from dangad.text import counted, meant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Protocol

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from dangad.pool.outputlog import OutputLog
    from dangad.scheduler.concurrency import Paused
    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.supervisor import Supervisor
    from dangad.server.factory import ClientFactory

    class Stop(Protocol):
        """The orderly stop of the server; if `now`, jobs are not waited for."""

        def __call__(self, now: bool = False) -> object:
            """Begin it."""


MOST_NAMED = 10
"""The most commands that an event names."""
_STOPPING = "the server is stopping"
"""The text of the error for orders about workers during a stop."""


@implementer(IOperations)
class Operations:
    """See :class:`IOperations`, which defines each document.

    It has no mutable state of its own: everything is read from the parts. The configuration and
    the turns of the reactor are set later, once, by :mod:`dangad.tap`. The documents about jobs and
    clients are made by :mod:`.jobviews` and :mod:`.clientviews`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        dispatcher: Dispatcher,
        supervisor: Supervisor,
        clients: ClientFactory,
        output_log: OutputLog,
        stop: Stop,
    ) -> None:
        """Speak for these parts.

        :param output_log: remembers what jobs have printed.
        :param stop: begins the stop of the server.
        """
        self._clock = clock
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        self._clients = clients
        self._stop = stop
        parts = self._parts = Parts(clock)
        self._job_views = JobViews(clock, dispatcher, parts, output_log.memory.lines_of)
        self._worker_views = WorkerViews(clock, dispatcher, supervisor)
        self._client_views = ClientViews(clock, dispatcher, clients, parts)
        self._rates = Rates(clock, dispatcher.counters)
        self._command_views = CommandViews(dispatcher, self._rates, parts)
        self._events = Events(clock, dispatcher.counters, supervisor.history, parts)
        self._hand_calls = HandCalls(dispatcher)
        self._began = clock.seconds()
        self._version = version("dangad")  # this reads files: only before the server runs
        #: The options with which the server was started.
        self.configuration = Configuration()
        #: How long the reactor's turns take.
        self.turns = ReactorWatch()

    def start(self) -> None:
        """Begin to sample rates."""
        self._rates.start()

    def stop(self) -> None:
        """Leave no call on the clock, and answer those who watch."""
        self._rates.stop()
        self._events.stop()

    def turn(self) -> Deferred[str]:
        """See :meth:`IOperations.turn`."""
        return self._parts.turn()

    def status(self) -> dict[str, Any]:
        """See :meth:`IOperations.status`."""
        dispatcher, supervisor = self._dispatcher, self._supervisor
        states = [record.state.value for record in supervisor.records.values()]
        counters = dispatcher.counters
        now, oldest = self._clock.seconds(), dispatcher.state.queue.oldest()
        return {
            "version": self._version,
            "pid": os.getpid(),
            "uptime": now - self._began,
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
                "max_queued": dispatcher.admission.max_queued,
                "running": dispatcher.running,
                "accepted": counters.accepted,
                "refused": counters.refused,
                **self._ends(),
            },
            "oldest_wait": None if oldest is None else max(0.0, now - oldest),
            "backlog": {
                priority.name.lower(): number
                for priority, number in dispatcher.state.queue.count_by_priority().items()
            },
            "paused": _paused(dispatcher.paused),
            "last": self._rates.last(),
            "failed_by_code": dict(counters.metrics.codes),
            "refused_by_code": dict(counters.metrics.refusals),
            "quarantine": [
                {"command": command.decode("ascii", "replace"), "seconds": seconds}
                for command, seconds in dispatcher.kept_away().items()
            ],
            "connections": self._clients.connections,
            "held": self._clients.budget.total,
            "memory": memory_of(os.getpid()).resident,
            "stall": self.turns.document(),
            "deaths": {cause.value: number for cause, number in supervisor.history.deaths.items()},
        }

    def workers(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.workers`."""
        return self._worker_views.workers()

    def deaths(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.deaths`."""
        return self._worker_views.deaths()

    def jobs(
        self,
        filter: Mapping[str, Any] | None = None,
        sort: str = "state",
        limit: int = 100,
        offset: int = 0,
    ) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.jobs`."""
        return self._job_views.jobs(filter, sort, limit, offset)

    def recent(
        self, filter: Mapping[str, Any] | None = None, sort: str | None = None, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """See :meth:`IOperations.recent`."""
        return self._job_views.recent(filter, sort, limit)

    def job(self, job_id: int) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.job`."""
        return self._job_views.job(job_id)

    def commands(self) -> Deferred[list[dict[str, Any]]]:
        """See :meth:`IOperations.commands`."""
        return self._command_views.commands()

    def clients(self, sort: str = "-since", limit: int = 100) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.clients`."""
        return self._client_views.clients(sort, limit)

    def histograms(self) -> dict[str, Any]:
        """See :meth:`IOperations.histograms`."""
        return {**self._command_views.histograms(), "stalls": self.turns.histogram()}

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

    def watch(
        self,
        after: int | None = None,
        filter: Mapping[str, Any] | None = None,
        kinds: Collection[str] | None = None,
    ) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.watch`."""
        told = self._events.watch(after, read_watched(filter, kinds))
        return told.addCallback(lambda answer: {**answer, "state": self._state()})

    def signature(self, command: str) -> dict[str, Any] | None:
        """See :meth:`IOperations.signature`."""
        return self._dispatcher.state.registry.entry(command.encode("utf-8", "replace"))

    def call(
        self, command: str, words: Mapping[str, Sequence[str]], **options: Any
    ) -> Deferred[int]:
        """See :meth:`IOperations.call`."""
        return self._hand_calls.call(command, words, **options)

    def calls(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.calls`."""
        return self._hand_calls.documents()

    def run_again(self, job_id: int) -> Deferred[int]:
        """See :meth:`IOperations.run_again`."""
        return self._job_views.find_live(job_id).addCallback(self._hand_calls.repeat)

    def cancel(
        self, which: Collection[int] | Mapping[str, Any], most: int = 1000
    ) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.cancel`."""
        return self._job_views.cancel(which, most)

    def pause(self, commands: Collection[str] | None) -> dict[str, Any]:
        """See :meth:`IOperations.pause`."""
        names = None if commands is None else [_as_bytes(name) for name in commands]
        self._check_known(names or (), frozenset())
        paused = _paused(self._dispatcher.pause(names))
        self._events.note("paused", _named(commands))
        return paused

    def resume(self, commands: Collection[str] | None) -> dict[str, Any]:
        """See :meth:`IOperations.resume`."""
        names = None if commands is None else [_as_bytes(name) for name in commands]
        self._check_known(names or (), self._dispatcher.paused.commands)
        self._events.note("resumed", _named(commands))  # before the jobs start that it lets start
        return _paused(self._dispatcher.resume(names))

    def _check_known(self, names: Iterable[bytes], others: Collection[bytes]) -> None:
        """Check that these are commands of the server, or some of `others`.

        :raises ValueError: the server does not have one of them.
        """
        registry = self._dispatcher.state.registry
        for name in names:
            if registry.lacks(name) and name not in others:
                known = [each.decode("ascii") for each in registry.policies]
                shown = name.decode("ascii", "replace")
                raise ValueError(f"the server has no command {shown!r}{meant(shown, known)}")

    def pardon(self, command: str) -> bool:
        """See :meth:`IOperations.pardon`."""
        return self._dispatcher.pardon(_as_bytes(command))

    def scale(self, min_workers: int, max_workers: int, force: bool = False) -> None:
        """See :meth:`IOperations.scale`."""
        if self._dispatcher.draining:
            raise ShuttingDown(_STOPPING)
        check_numbers(min_workers, max_workers)
        check_workers(max_workers, self._memory_of_one(), force)
        self._events.note("scaled", f"{min_workers} to {max_workers} workers")
        self._supervisor.scale(min_workers, max_workers)

    def stack(self, job_id: int) -> Deferred[str]:
        """See :meth:`IOperations.stack`."""
        return self._worker_views.stack(job_id)

    def reload(self) -> Deferred[None]:
        """See :meth:`IOperations.reload`."""
        if self._dispatcher.draining:
            return fail(ShuttingDown(_STOPPING))
        self._events.note("reload")
        return self._supervisor.reload()

    def drain(self) -> Deferred[dict[str, int]]:
        """See :meth:`IOperations.drain`."""
        ended = self._dispatcher.when_drained()
        self._events.note("draining")
        self._stop()
        return ended.addCallback(lambda _: self._ends())

    def shutdown(self, now: bool = False) -> None:
        """See :meth:`IOperations.shutdown`."""
        self._events.note("draining", "at once" if now else None)
        self._stop(now)

    def _state(self) -> str:
        """How the server is, for those who watch."""
        if self._events.stopped:
            return "stopped"
        return "draining" if self._dispatcher.draining else "running"

    def _memory_of_one(self) -> int:
        """The bytes of memory of the oldest ready worker, as an estimate; 0 if there is none."""
        oldest = next(
            (record for record in self._supervisor.records.values() if record.serves), None
        )
        return oldest.process.memory() if oldest is not None else 0

    def _ends(self) -> dict[str, int]:
        ended = self._dispatcher.counters.ended
        return {state.value.replace(" ", "_"): ended[state] for state in ended}


def _as_bytes(command: str) -> bytes:
    """The name of a command as it travels."""
    return command.encode("ascii", "replace")


def _named(commands: Collection[str] | None) -> str:
    """Commands in a few words, for those who watch."""
    names = ", ".join(islice(commands or (), MOST_NAMED))
    more = len(commands or ()) - MOST_NAMED
    return f"{names} and {counted(more, 'other')}" if more > 0 else names or "all commands"


def _paused(paused: Paused) -> dict[str, Any]:
    """The document of what is paused."""
    names = sorted(name.decode("ascii", "replace") for name in paused.commands)
    return {"all": paused.all, "commands": names}
