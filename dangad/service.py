"""Puts the parts together, and starts and stops them in the right order.

Made by :mod:`dangad.tap` from the command line, and by :mod:`dangad.testing`. The one module
that knows both the server and the pool.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from twisted.application import service
from twisted.internet import defer, error
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from dangad.accepting import Gate, raise_limit
from dangad.capacity import WORKER_FILES, cores
from dangad.control import MAX_CONNECTIONS as MAX_OPERATORS
from dangad.control import ControlFactory
from dangad.dispatcher import Dispatcher
from dangad.errors import DangadError
from dangad.guardian import Guardian
from dangad.jobrecord import JobState
from dangad.notify import Notifier
from dangad.operations import Operations
from dangad.passeddescriptors import guard
from dangad.pool import WorkerPool
from dangad.server import ClientFactory
from dangad.strays import Strays
from dangad.workerlife import Wear
from dangad.workforce import START_TIMEOUT, Workforce

if TYPE_CHECKING:
    from typing import Any

    from twisted.internet.interfaces import IListeningPort
    from twisted.internet.protocol import Factory
    from twisted.python.failure import Failure

    from dangad.launch import WorkerSettings

log = Logger()

SWEEP_INTERVAL = 0.5
"""Seconds between two looks for processes that outlived their job's worker."""
FLUSH_TIME = 5.0
"""Seconds in which clients must read their last answers when the server stops."""


HURRIED_FLUSH_TIME = 0.2
"""The same when it stops at once."""

_IDLE_SIGNALS = {
    signal.SIGUSR1: "SIGUSR1 rotates the log, and there is no log file (twistd --logfile)",
    signal.SIGUSR2: "SIGUSR2 means nothing to dangad",
}
"""What the log says of signals for which there is no handler, and whose default is the end."""


class CannotListen(Exception):
    """An endpoint cannot be listened on; the text says which and why, in one line."""


@dataclass(frozen=True)
class Limits:
    """The numbers that bound the server; the options of ``twistd dangad`` of the same names."""

    min_workers: int = 1
    max_workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    max_queued: int = 10_000
    max_queued_bytes: int = 2**30
    max_in_flight: int = 1000
    max_connections: int = 10_000
    max_payload: int = 64 * 2**20
    drain: float = 30.0
    quarantine_after: int = 5
    quarantine_time: float = 30.0
    spare_workers: int = 0
    recycle_jobs: int = 0
    recycle_memory: int = 0
    recycle_age: float = 0.0
    max_memory: int = 0
    start_timeout: float = START_TIMEOUT

    @property
    def wear(self) -> Wear:
        """After what a worker is replaced, or ended."""
        return Wear(self.recycle_jobs, self.recycle_memory, self.recycle_age, self.max_memory)


class DangadService(service.Service):
    """The whole server as one Twisted service.

    One service and not several in a MultiService, because those would all be stopped at once:
    here the end has an order. Listening stops, accepted jobs are finished, workers are
    stopped, and connections are closed when their answers are out.

    All mutable state: the parts that the constructor makes; `_ports`, what it listens on for
    clients, and `_control_ports`, for operators, to be closed last; `_terminal`, the descriptor
    of the terminal that it was started in, if it was;
    `_hurried`, whether it was told to stop at once, and `_flushing`, whether all that is left
    to do is to write the last answers.
    """

    name = "dangad"

    def __init__(
        self,
        reactor: Any,
        endpoints: list[str],
        settings: WorkerSettings,
        limits: Limits,
        control: str | None = None,
        log_jobs: bool = False,
        own_process: bool = False,
    ) -> None:
        """Make the parts; `startService` starts them.

        :param reactor: the reactor, which must be the global one: ampoule knows no other.
        :param endpoints: where to listen, as Twisted server endpoint descriptions.
        :param settings: what the workers are given.
        :param limits: the bounds of everything.
        :param control: where operators connect, likewise; None for nowhere.
        :param log_jobs: whether to log the end of every job.
        :param own_process: whether the process is the service's own: then SIGHUP, by which
            Twisted would end it, reloads; SIGUSR1 and SIGUSR2 do no harm; a second SIGTERM or
            SIGINT, which Twisted ignores, ends the stop at once; and children that it did not
            start are found and killed.
        """
        self._reactor = reactor
        self._endpoints = endpoints
        self._limits = limits
        self.dispatcher = Dispatcher(
            reactor,
            max_queued=limits.max_queued,
            max_queued_bytes=limits.max_queued_bytes,
            quarantine_after=limits.quarantine_after,
            quarantine_time=limits.quarantine_time,
            log_jobs=log_jobs,
        )
        self.workforce = Workforce(
            reactor,
            self.dispatcher,
            limits.min_workers,
            limits.max_workers,
            limits.spare_workers,
            limits.wear,
            starts_at_once=cores(),
            start_timeout=limits.start_timeout,
        )
        self.guardian = Guardian(reactor)
        self.pool = WorkerPool(reactor, self.workforce, self.dispatcher, self.guardian, settings)
        self._ports: list[IListeningPort] = []
        self.gate = Gate(reactor, self._ports, self._kept_descriptors)
        self.clients = ClientFactory(
            reactor,
            self.dispatcher,
            self.gate,
            max_payload=limits.max_payload,
            max_in_flight=limits.max_in_flight,
            max_connections=limits.max_connections,
        )
        self.operations = Operations(
            reactor, self.dispatcher, self.workforce, self.clients, self._end
        )
        self._control = ControlFactory(reactor, self.operations)
        self._control_endpoint = control
        self._own_process = own_process
        self._hurried = False
        self._flushing = False
        self._control_ports: list[IListeningPort] = []
        self._notifier = Notifier(reactor, os.environ if own_process else {})
        self._strays = Strays()
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self._terminal = 0 if own_process and os.isatty(0) else None

    def privilegedStartService(self) -> None:
        """Listen, while still root if started as root.

        :raises CannotListen: one of the endpoints cannot be listened on.
        """
        super().privilegedStartService()
        self._listen_everywhere()

    def startService(self) -> None:
        """Start the first workers; clients that came before wait for them."""
        super().startService()
        if not self._ports:
            self._listen_everywhere()
        if self._own_process:
            signal.signal(signal.SIGHUP, self._hung_up)
            for number, meaning in _IDLE_SIGNALS.items():
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, partial(self._shrug, meaning))
            self._strays.adopt()
            self._sweeping.start(SWEEP_INTERVAL, now=False)
            raise_limit()
        self._notifier.start()
        self.guardian.start()
        self.gate.start(self._limits.max_connections)
        self.workforce.start(self.pool)
        if self._notifier.wanted:
            booted = self.dispatcher.describe()
            booted.addCallbacks(lambda _: self._notifier.ready("serving"), _is_logged)

    def stopService(self) -> defer.Deferred[None]:
        """Stop in the order that the class tells.

        Fires with None when no job, no worker and no connection is left.
        """
        super().stopService()
        if self._own_process:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._signalled)
        self._notifier.stopping()
        return defer.Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Go on with the stop that is under way at once: end every job, and kill every worker."""
        log.warn("stopping at once")
        self._hurried = True
        self.workforce.stop()
        self.dispatcher.drain(0)
        self.pool.kill_all("was killed: the server stops at once")
        if self._flushing:
            self.clients.abort()

    def reload(self) -> None:
        """Replace the workers by such that have the job modules as they are now, one by one."""
        log.info("reloading")
        self._notifier.reloading()
        reloading = self.workforce.reloading
        done = self.workforce.reload().addErrback(_is_logged)
        done.addCallback(lambda _: self._notifier.ready(f"reload: {reloading.state.value}"))

    def _kept_descriptors(self) -> int:
        """Those that workers, with one that is replaced, and operators may come to need."""
        return WORKER_FILES * (self.workforce.max_workers + 1) + MAX_OPERATORS

    def _sweep(self) -> None:
        """Kill what jobs had detached from workers that are dead now."""
        own = [*(link.pid for link in self.pool.processes), self.guardian.pid]
        _log_strays(self._strays.sweep({pid for pid in own if pid is not None}))

    def _signalled(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self.hurry)

    def _shrug(self, meaning: str, _number: int, _frame: object) -> None:
        """A signal by which a process ends that knows nothing of it, sent by mistake."""
        self._reactor.callFromThread(log.warn, "nothing is done: {meaning}", meaning=meaning)

    def _hung_up(self, _number: int, _frame: object) -> None:
        """SIGHUP: somebody wants a reload, or the terminal is gone in which the server runs."""
        gone = self._terminal is not None and not os.isatty(self._terminal)
        self._reactor.callFromThread(self._end if gone else self.reload)

    def _end(self) -> None:
        """Begin the orderly end of the server, as an operator wants it."""
        if not self._own_process:
            self.dispatcher.drain(self._limits.drain)
            return
        with contextlib.suppress(error.ReactorNotRunning):  # it has begun already
            self._reactor.stop()

    async def _stop(self) -> None:
        self.gate.stop()
        await _stop_listening(self._ports)
        log.info(
            "stopping: {running} jobs run and {waiting} wait, for at most {drain:g} s",
            running=self.dispatcher.running,
            waiting=self.dispatcher.waiting,
            drain=self._limits.drain,
        )
        await self.dispatcher.drain(self._limits.drain)
        self.workforce.stop()
        await self.pool.stop()
        await self.guardian.stop()
        if self._sweeping.running:
            self._sweeping.stop()
            _log_strays(await self._strays.sweep_out(self._reactor))
        self._flushing = True
        await self.clients.close(HURRIED_FLUSH_TIME if self._hurried else FLUSH_TIME)
        self.clients.quiet.flush()
        await _stop_listening(self._control_ports)
        await self._control.close()
        self._notifier.stop()
        tally = self.dispatcher.tally
        log.info(
            "stopped: of {accepted} jobs {done} were done, {failed} failed, {lost} lost, "
            "{cancelled} cancelled, {timed_out} timed out; {refused} more were refused",
            accepted=tally.accepted,
            done=tally.ended[JobState.DONE],
            failed=tally.ended[JobState.FAILED],
            lost=tally.ended[JobState.LOST],
            cancelled=tally.ended[JobState.CANCELLED],
            timed_out=tally.ended[JobState.TIMED_OUT],
            refused=tally.refused,
        )

    @property
    def addresses(self) -> list[Any]:
        """Where it listens, in the order of the endpoints."""
        return [port.getHost() for port in self._ports]

    def _listen_everywhere(self) -> None:
        for description in self._endpoints:
            self._listen(description, self.clients, self._ports)
        if self._control_endpoint is not None:
            self._listen(self._control_endpoint, self._control, self._control_ports)

    def _listen(self, description: str, factory: Factory, ports: list[IListeningPort]) -> None:
        """Listen on one endpoint; those of Twisted tell at once whether they can."""
        outcome: list[Any] = []
        endpoint = serverFromString(self._reactor, description)
        listening = endpoint.listen(factory)
        listening.addCallbacks(ports.append, outcome.append)
        for port in ports:
            guard(port)
        for failure in outcome:
            raise CannotListen(f"{description}: {_why(failure.value)}")


async def _stop_listening(ports: list[IListeningPort]) -> None:
    stopping = [defer.maybeDeferred(port.stopListening) for port in ports]
    ports.clear()
    await defer.DeferredList(stopping)


def _is_logged(failure: Failure) -> None:
    """Nothing: why no worker starts is in the log."""
    failure.trap(DangadError)


def _log_strays(strays: list[int]) -> None:
    if strays:
        log.warn("killed processes that jobs had left behind: {pids}", pids=strays)


def _why(problem: BaseException) -> str:
    """What the system said, without what the reader knows."""
    cause = problem.socketError if isinstance(problem, error.CannotListenError) else problem
    return getattr(cause, "strerror", None) or str(cause)
