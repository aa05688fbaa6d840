"""Puts the parts of the parent together, and starts and stops them in the right order.

Made by :mod:`dangad.tap` from the command line, and by :mod:`dangad.testing`. Only this module and
:mod:`dangad.tap` know both the server and the pool.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from twisted.application import service
from twisted.internet import defer, error
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from dangad.errors import DangadError
from dangad.host.capacity import STARTING_FILES, WORKER_FILES, cores
from dangad.host.garbage import ShortCollections
from dangad.operators.control import ControlFactory
from dangad.operators.systemd import Notifier
from dangad.operators.view import Operations
from dangad.pool.guardian import Guardian
from dangad.pool.orphans import Orphans, log_orphans
from dangad.pool.processes import WorkerPool
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.joblog import log_stopping, log_totals
from dangad.scheduler.supervisor import Supervisor
from dangad.scheduler.workerrecord import RecycleLimits
from dangad.server.acceptgate import AcceptGate, raise_limit
from dangad.server.access import MAX_REFUSALS
from dangad.server.endpoints import read_endpoint
from dangad.server.factory import ClientFactory
from dangad.server.listening import Access, CannotListen, open_door, stop_listening
from dangad.server.memorybudget import default_limit
from dangad.server.peers import Allowed
from dangad.text import counted
from dangad.waiters import fired_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IListeningPort
    from twisted.python.failure import Failure

    from dangad.limits import Limits
    from dangad.pool.launch import WorkerSettings
    from dangad.server.endpoints import Endpoint
    from dangad.server.listening import Door
    from dangad.web.settings import WebSettings

log = Logger()

SWEEP_INTERVAL = 0.5
"""Seconds between two searches for orphans: processes of jobs that have outlived their worker."""
BOOT_INTERVAL = 1.0
"""Seconds between two checks for a first worker, if none could be started at first."""
WORKERS_TIME = 15.0
"""Seconds in which workers must be gone when the server stops; a debugger may hold a dead one."""
FLUSH_TIME = 5.0
"""Seconds in which clients must read their last answers when the server stops."""
HURRIED_FLUSH_TIME = 0.2
"""Seconds in which clients must read their last answers when the server stops at once."""

_IDLE_SIGNALS = {
    signal.SIGUSR1: "SIGUSR1 rotates the log, and there is no log file (twistd --logfile)",
    signal.SIGUSR2: "SIGUSR2 means nothing to dangad",
}
"""Signals that would end the process by default, and the log line that they cause instead."""


class DangadService(service.Service):
    """The whole server as one Twisted service.

    A MultiService would stop all its services at once, but here the stop has an order: listening
    ends, accepted jobs are finished, workers are stopped, and connections are closed when their
    answers are sent.
    """

    name = "dangad"

    def __init__(
        self,
        reactor: Any,
        endpoints: list[str],
        settings: WorkerSettings,
        limits: Limits,
        control: str | None = None,
        log_jobs: str = "failed",
        own_process: bool = False,
        access: Access | None = None,
        web: WebSettings | None = None,
    ) -> None:
        """Make the parts; `startService` starts them.

        :param reactor: the global reactor; ampoule supports no other.
        :param endpoints: where to listen, each in a form of
            :func:`dangad.server.endpoints.read_endpoint`.
        :param settings: the workers' settings.
        :param limits: the limits of all parts.
        :param control: where operators connect, in the same form; None if they cannot connect.
        :param log_jobs: which jobs are logged, one of :data:`dangad.limits.LOG_JOBS`.
        :param own_process: whether the process belongs to the service alone. Then SIGHUP reloads,
            SIGUSR1 and SIGUSR2 do no harm, a second SIGTERM or SIGINT stops at once, and orphans
            are found and killed. Otherwise signals are left to the process.
        :param access: who may connect; None for the server's own user and root.
        :param web: the page for operators; None if there is none.
        :raises ValueError: the description of an endpoint is not valid.
        """
        self._reactor = reactor
        self._endpoints = [read_endpoint(text) for text in endpoints]
        self._access = access or Access()
        self._limits = limits
        self.dispatcher = Dispatcher(
            reactor,
            max_queued=limits.max_queued,
            max_queued_bytes=limits.max_queued_bytes,
            quarantine_after=limits.quarantine_after,
            quarantine_time=limits.quarantine_time,
            log_jobs=log_jobs,
        )
        self.supervisor = Supervisor(
            reactor,
            self.dispatcher,
            limits.min_workers,
            limits.max_workers,
            limits.spare_workers,
            RecycleLimits(
                limits.recycle_jobs, limits.recycle_memory, limits.recycle_age, limits.max_memory
            ),
            starts_at_once=cores(),
            leaving_at_once=cores(),
            start_timeout=limits.start_timeout,
            relief_after=limits.relief_after,
        )
        self.guardian = Guardian(reactor, settings.mark)
        self.pool = WorkerPool(
            reactor, self.supervisor, self.dispatcher.answers, self.guardian, settings
        )
        #: The ports for clients.
        self._ports: list[IListeningPort] = []
        self.gate = AcceptGate(reactor, self._ports, self._kept_descriptors)
        self.clients = ClientFactory(
            reactor,
            self.dispatcher,
            self.gate,
            max_payload=limits.max_payload,
            max_in_flight=limits.max_in_flight,
            max_connections=limits.max_connections,
            max_buffered=limits.max_buffered or default_limit(limits.max_payload),
        )
        self.operations = Operations(
            reactor, self.dispatcher, self.supervisor, self.clients, self.pool.output_log, self._end
        )
        self._control = ControlFactory(reactor, self.operations)
        #: Where operators connect: the option, the endpoint, and what answers there.
        self._insides: list[tuple[str, Endpoint, Any]] = []
        if control is not None:
            self._insides.append(("--control", read_endpoint(control), self._control))
        if web is not None:
            from dangad.web.website import WebSite

            site = WebSite(reactor, self.operations, web)
            self._insides.append(("--web", read_endpoint(web.endpoint), site))
        self._own_process = own_process
        #: Whether the server was told to stop at once.
        self._hurried = False
        #: Whether the stop has come to the last step: clients read their last answers.
        self._flushing = False
        #: The ports for operators, which are closed last.
        self._control_ports: list[IListeningPort] = []
        #: All open endpoints.
        self._doors: list[Door] = []
        #: The call that checks for a first worker again; None if none is due.
        self._waiting: IDelayedCall | None = None
        self._notifier = Notifier(reactor, os.environ if own_process else {})
        self._orphans = Orphans(settings.mark)
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self._collections = ShortCollections(reactor)
        #: Called at the end of the stop, one after the other, when all clients have been told.
        self.farewells: list[Callable[[], defer.Deferred[None]]] = []

    def privilegedStartService(self) -> None:
        """Listen, while still root if started as root.

        :raises dangad.server.listening.CannotListen: an endpoint cannot be opened.
        """
        super().privilegedStartService()
        self._listen_everywhere()

    def startService(self) -> None:
        """Start the first workers; clients that came before wait for them."""
        super().startService()
        if not self._ports:
            self._listen_everywhere()
        if self._own_process:
            signal.signal(signal.SIGHUP, partial(self._hung_up, os.isatty(0)))
            for number, meaning in _IDLE_SIGNALS.items():
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, partial(self._shrug, meaning))
            self._orphans.adopt()
            self._sweeping.start(SWEEP_INTERVAL, now=False)
            raise_limit()
            self._collections.start()
        self.pool.settle()
        self._notifier.start()
        self.guardian.start()
        self.operations.start()
        self.gate.start(self._limits.max_connections)
        self.supervisor.start(self.pool)
        self._say_where()
        self._await_first_worker()

    def stopService(self) -> defer.Deferred[None]:
        """Stop in the order that the class describes.

        Fires with None when no job, no worker and no connection is left.
        """
        super().stopService()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._own_process:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._signalled)
        self._notifier.stopping()
        return defer.Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Finish a stop that is under way at once: end every job, and kill every worker."""
        log.warn("stopping at once")
        self._hurried = True
        self.supervisor.stop()
        self.dispatcher.drain(0)
        self.pool.kill_all("was killed: the server stops at once")
        if self._flushing:
            self.clients.abort()

    def reload(self) -> None:
        """Replace the workers, one by one, by workers that import the present job modules."""
        if self.dispatcher.draining:
            log.warn("nothing is reloaded: the server is stopping")
            return
        log.info("reloading")
        self._notifier.reloading()
        reloading = self.supervisor.reloading
        done = self.supervisor.reload().addErrback(_is_logged)
        done.addCallback(lambda _: self._notifier.ready(f"reload: {reloading.state.value}"))

    def _say_where(self) -> None:
        """Log where the server listens, and who may connect."""
        said = {door.port: f"{door} (for {door.who})" for door in self._doors}
        log.info(
            "dangad {version} listens on {clients}; for operators on {operators}",
            version=version("dangad"),
            clients=", ".join(said[port] for port in self._ports) or "nothing",
            operators=", ".join(said[port] for port in self._control_ports) or "nothing",
        )
        for door in self._doors:
            for warning in door.warnings:
                log.warn("{warning}", warning=warning)

    def _await_first_worker(self) -> None:
        """Tell the log and the service manager as soon as jobs can be performed."""
        self._waiting = None
        self.dispatcher.describe(by_server=True).addCallbacks(self._serves, self._does_not_serve)

    def _serves(self, catalogue: str) -> None:
        least, most = self.supervisor.min_workers, self.supervisor.max_workers
        commands = counted(len(json.loads(catalogue)["commands"]), "command")
        workers = counted(most, "worker") if least == most else f"{least} to {most} workers"
        text = "dangad {version} serves {_commands} with {_workers}"
        log.info(text, version=version("dangad"), _commands=commands, _workers=workers)
        self._notifier.ready("serving")

    def _does_not_serve(self, failure: Failure) -> None:
        """Wait on: no worker could be started so far, for a reason that was logged."""
        failure.trap(DangadError)
        if self.running:
            self._waiting = self._reactor.callLater(BOOT_INTERVAL, self._await_first_worker)

    def _kept_descriptors(self) -> int:
        """The descriptors kept for workers, operators and refused connections.

        They include those of a further worker, see :mod:`dangad.scheduler.relief`.
        """
        workers = WORKER_FILES * (self.supervisor.most_processes + 1) + STARTING_FILES * cores()
        operators: int = sum(inside.most_connections for _, _, inside in self._insides)
        return workers + operators + MAX_REFUSALS * len(self._doors)

    def _sweep(self) -> None:
        """Kill the detached processes of jobs whose workers are dead."""
        if self.pool.is_forking:  # forks that were not reported yet would be taken for orphans
            return
        log_orphans(self._orphans.sweep(self.pool.pids))

    def _signalled(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self.hurry)

    def _shrug(self, meaning: str, _number: int, _frame: object) -> None:
        """Log a signal that was sent by mistake, and that would end the process by default."""
        self._reactor.callFromThread(log.warn, "nothing is done: {meaning}", meaning=meaning)

    def _hung_up(self, had_terminal: bool, _number: int, _frame: object) -> None:
        """Handle SIGHUP: reload, or stop if the server's terminal is gone."""
        gone = had_terminal and not os.isatty(0)
        if gone:
            self._reactor.callFromThread(log.warn, "the terminal of the server is gone")
        self._reactor.callFromThread(self._end if gone else self.reload)

    def _end(self, now: bool = False) -> None:
        """Begin the orderly stop of the server, for an operator; if `now`, finish it at once."""
        if not self._own_process:
            self.dispatcher.drain(0 if now else self._limits.drain)
            return
        if now and self.running:  # `stopService` comes first: its trigger was added before
            self._reactor.addSystemEventTrigger("before", "shutdown", self.hurry)
        elif now:
            self.hurry()
        with contextlib.suppress(error.ReactorNotRunning):  # the stop has begun already
            self._reactor.stop()

    async def _stop(self) -> None:
        self.gate.stop()
        await _stop_listening(self._ports)
        if not self._hurried:  # otherwise this was said already
            log_stopping(self.dispatcher, self._limits.drain, self._own_process)
        await self.dispatcher.drain(0 if self._hurried else self._limits.drain)
        self.supervisor.stop()
        await self._stop_workers()
        await self.guardian.stop()
        if self._sweeping.running:
            self._sweeping.stop()
            log_orphans(await self._orphans.sweep_out(self._reactor))
        self._flushing = True
        await self.clients.close(HURRIED_FLUSH_TIME if self._hurried else FLUSH_TIME)
        self.clients.quiet.flush()
        self.operations.stop()
        await _stop_listening(self._control_ports)
        for _, _, inside in self._insides:
            await inside.close()
        self._notifier.stop()
        self._collections.stop()
        for farewell in self.farewells:
            await farewell()
        log_totals(self.dispatcher.counters)

    async def _stop_workers(self) -> None:
        """Stop the workers; never raises, so that the rest of the server is stopped, too."""
        try:
            gone = await fired_within(self._reactor, WORKERS_TIME, self.pool.stop())
        except Exception:  # noqa: BLE001 - logged
            log.failure("the server failed while it stopped the workers")
            return
        if not gone:
            pids = [link.pid for link in self.pool.processes]
            log.warn("workers {pids} are not gone, though they were killed; left alone", pids=pids)

    @property
    def addresses(self) -> list[Any]:
        """The addresses of the clients' endpoints, in their order."""
        return [port.getHost() for port in self._ports]

    def _listen_everywhere(self) -> None:
        """Listen on all endpoints, or on none."""
        try:
            for endpoint in self._endpoints:
                self._doors.append(open_door(self._reactor, endpoint, self.clients, self._access))
                self._ports.append(self._doors[-1].port)
            access = replace(self._access, allowed=Allowed())  # not all who may send jobs
            for option, endpoint, inside in self._insides:
                self._doors.append(open_door(self._reactor, endpoint, inside, access, option))
                self._control_ports.append(self._doors[-1].port)
        except CannotListen:
            for door in self._doors:
                door.close_at_once()
            for opened in (self._doors, self._ports, self._control_ports):
                opened.clear()
            raise


async def _stop_listening(ports: list[IListeningPort]) -> None:
    stopping = [stop_listening(port) for port in ports]
    ports.clear()
    await defer.DeferredList(stopping)


def _is_logged(failure: Failure) -> None:
    """Drop an error of dangad's that was logged already."""
    failure.trap(DangadError)
