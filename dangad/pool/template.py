"""The parent's end of the template, which forks the workers: :mod:`dangad.worker.template`.

Kept by :mod:`dangad.pool.processes`. A worker is ordered over a socket, with its ends of the pipes,
and is there a few milliseconds later. If the template dies, another takes its place, and all that
was ordered and not forked is ordered again: nobody else is told. A template that does not fork in
time is killed. Where templates fail again and again, workers are started without one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.process import registerReapProcessHandler, unregisterReapProcessHandler
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from zope.interface import implementer

from dangad.scheduler.clockcalls import cancel
from dangad.text import printable
from dangad.wire.commands import TEMPLATE_NEVER, TEMPLATE_READY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from dangad.pool.forkedprocess import ForkedProcess
    from dangad.pool.guardian import Guardian

log = Logger()

READY_TIME = 30.0
"""Seconds in which a template must be ready."""
FORK_TIME = 5.0
"""Seconds in which one that is ready must have forked."""
MOST_FAILURES = 3
"""Templates in a row that fork nothing, after which there are none any more."""
RESTART_DELAY = 1.0
"""Seconds before a template is replaced of which nothing was wanted."""
MOST_REPORTS = 100
"""Reports that are read in one turn of the reactor."""
REPORT_SIZE = 1000
"""Bytes of the longest report."""
MOST_LINES = 100
"""Lines of a template's output that are logged."""
LONGEST_LINE = 1000
"""Characters of one of them."""


@implementer(IReadDescriptor)
class _Process(ProcessProtocol):
    """One template: its process, and the socket for its orders and reports.

    It is gone when the process is, and the socket is closed by all that it has forked.
    """

    transport: Any

    def __init__(
        self, reactor: Any, reported: Callable[[bytes], object], gone: Callable[[str], object]
    ) -> None:
        """Begin without a process.

        :param reported: called with each report.
        :param gone: called once it is gone, with words that follow "the template".
        """
        self._reactor = reactor
        self._reported = reported
        self._gone = gone
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        #: The id of the process; 0 before there is one.
        self.pid = 0
        #: How the process ended; None while it lives.
        self._end: str | None = None
        #: Lines of its output that are still logged.
        self._lines_left = MOST_LINES
        reactor.addReader(self)

    @property
    def dead(self) -> bool:
        """Whether its process is gone."""
        return self._end is not None

    def order(self, number: int, descriptors: Sequence[int]) -> None:
        """Order a worker.

        :raises OSError: nothing can be written.
        """
        socket.send_fds(self._ours, [b"%d" % number], descriptors)

    def kill(self) -> None:
        """Kill the process."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def close(self) -> None:
        """Wait for no more reports."""
        if self._ours.fileno() != -1:
            self._reactor.removeReader(self)
            self._ours.close()
        if self._end is not None:
            self._gone(self._end)

    # Called by the reactor.

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._ours.fileno()

    def logPrefix(self) -> str:
        """What the reactor may call it."""
        return "template"

    def connectionLost(self, reason: Failure) -> None:
        """Nothing: the reactor calls `doRead` for what matters."""

    def doRead(self) -> None:
        """Take the reports that are there."""
        for _ in range(MOST_REPORTS):
            try:
                report = self._ours.recv(REPORT_SIZE)
            except BlockingIOError:
                return
            except OSError:
                report = b""
            if not report:
                self.kill()
                self.close()
                return
            self._reported(report)
            if self._ours.fileno() == -1:
                return

    def connectionMade(self) -> None:
        """Note the process that was started."""
        self.pid = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Log the first lines that it prints."""
        for line in data.decode(errors="replace").splitlines()[: self._lines_left]:
            self._lines_left -= 1
            log.info("template {pid}: {line}", pid=self.pid, line=printable(line)[:LONGEST_LINE])

    def processExited(self, reason: Failure) -> None:
        """It is dead; what it has forked may still have to tell of that."""
        value = reason.value
        number = getattr(value, "signal", None)
        exited = f"exited (status {getattr(value, 'exitCode', None) or 0})"
        self._end = f"was killed by signal {number}" if number else exited
        for fd in list(self.transport.pipes):
            self.transport.closeChildFD(fd)
        if self._ours.fileno() == -1:
            self._gone(self._end)


class Template:
    """The template of now, and what it was ordered to fork."""

    def __init__(
        self,
        clock: IReactorTime,
        reactor: Any,
        guardian: Guardian,
        start: Callable[[ProcessProtocol, int], object],
    ) -> None:
        """Begin without one: the first order starts it.

        :param clock: the source of time.
        :param reactor: reads what the templates report.
        :param guardian: who kills it if the parent dies.
        :param start: starts a process, with its protocol and the socket for its orders.
        """
        self._clock = clock
        self._reactor = reactor
        self._guardian = guardian
        self._start = start
        #: Why workers are started without one; None while they are forked.
        self.given_up: str | None = None
        #: The template; None while there is none.
        self._process: _Process | None = None
        #: What was ordered and is not forked, with the descriptors that it is to have.
        self._orders: dict[int, tuple[ForkedProcess, Sequence[int]]] = {}
        #: What was ordered, and is to be killed once it is forked.
        self._unwanted: set[int] = set()
        #: The number of the last order.
        self._last = 0
        #: How many templates in a row have forked nothing.
        self._failures = 0
        #: When the template is killed if it does nothing before.
        self._alarm: IDelayedCall | None = None
        #: The start of the next template.
        self._restart: IDelayedCall | None = None
        #: Who waits for its end, once it is not wanted any more.
        self._stopped: Deferred[None] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the template's process; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def is_forking(self) -> bool:
        """Whether there may be processes that it has forked, of which it has not told."""
        return bool(self._orders or self._unwanted)

    # Told by `ForkedProcess`.

    def fork(self, process: ForkedProcess, descriptors: Sequence[int]) -> None:
        """See :meth:`dangad.pool.forkedprocess.Forks.fork`.

        :raises OSError: no template can be started, or told.
        """
        self._last += 1
        if self._process is None:
            self._begin()
        elif not self._orders:
            self._expect(FORK_TIME)
        assert self._process is not None
        self._process.order(self._last, descriptors)
        self._orders[self._last] = process, descriptors

    def forget(self, process: ForkedProcess) -> None:
        """See :meth:`dangad.pool.forkedprocess.Forks.forget`."""
        for number, (ordered, _) in self._orders.items():
            if ordered is process:
                del self._orders[number]
                self._unwanted.add(number)
                return

    def stop(self) -> Deferred[None]:
        """End the template; fires when it is gone."""
        self._stopped = Deferred()
        cancel(self._restart)
        self._fail_all("the server is stopping")
        if self._process is None:
            self._stopped.callback(None)
        else:
            self._expect(FORK_TIME)
            self._process.kill()
        return self._stopped

    # A template's life.

    def _begin(self) -> None:
        """Start one.

        :raises OSError: there is no room for another process.
        """
        cancel(self._restart)
        process = _Process(self._reactor, self._reported, self._gone)
        try:
            self._start(process, process.theirs.fileno())
        except BaseException:
            process.close()
            raise
        finally:
            process.theirs.close()
        self._process = process
        self._guardian.watch(process.pid)
        self._expect(READY_TIME)

    def _expect(self, seconds: float) -> None:
        """Have it killed unless it does something within this time."""
        cancel(self._alarm)
        self._alarm = self._clock.callLater(seconds, self._is_late, seconds)

    def _is_late(self, seconds: float) -> None:
        self._alarm = None
        if self._process is None:
            return
        if self._process.dead:  # a fork is frozen that has not told of itself
            self._fail_all(f"was not ready within {seconds:g} s of its fork")
            self._process.close()
            return
        log.warn(
            "the template {pid} has done nothing for {seconds:g} s, and is killed",
            pid=self.pid,
            seconds=seconds,
        )
        self._expect(FORK_TIME)
        self._process.kill()

    def _reported(self, report: bytes) -> None:
        """Take a report: it is ready, or has forked, or could not."""
        number, _, outcome = report.partition(b" ")
        if number == TEMPLATE_NEVER:
            self._give_up(outcome.decode(errors="replace"))
        elif number != TEMPLATE_READY:
            pid, _, reason = outcome.partition(b" ")
            self._forked(int(number), int(pid), reason.decode(errors="replace"))
        if self._orders:
            self._expect(FORK_TIME)
        else:
            cancel(self._alarm)
            self._alarm = None

    def _forked(self, number: int, pid: int, reason: str) -> None:
        if number in self._unwanted:
            self._unwanted.discard(number)
            if pid:
                _Unwanted(pid)
        elif number in self._orders:  # else it is told twice, by the template and by the fork
            process, _ = self._orders.pop(number)
            if pid:
                self._failures = 0
                process.forked(pid)
            else:
                process.not_forked(f"could not be forked: {reason}")

    def _gone(self, how: str) -> None:
        """It is dead, and all that it has forked has told so."""
        process, self._process = self._process, None
        cancel(self._alarm)
        self._alarm = None
        self._unwanted.clear()
        if process is not None:
            self._guardian.forget(process.pid)
        if self._stopped is not None:
            if not self._stopped.called:
                self._stopped.callback(None)
            return
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            self._give_up(f"{MOST_FAILURES} templates have forked nothing; the last {how}")
        if self.given_up is not None:
            return
        log.warn("the template {how}, and is replaced", how=how)
        if self._orders:
            self._order_again()
        else:
            self._restart = self._clock.callLater(RESTART_DELAY, self._begin_again)

    def _order_again(self) -> None:
        try:
            self._begin()
            assert self._process is not None
            for number, (_, descriptors) in self._orders.items():
                self._process.order(number, descriptors)
        except OSError as error:
            self._fail_all(f"could not be forked: {error.strerror or error}")

    def _begin_again(self) -> None:
        with contextlib.suppress(OSError):  # the next order tries again
            self._begin()

    def _give_up(self, why: str) -> None:
        self.given_up = why
        log.warn("workers are started without a template from now on: {why}", why=why)
        self._fail_all(f"was not forked: {why}")

    def _fail_all(self, reason: str) -> None:
        orders, self._orders = self._orders, {}
        for process, _ in orders.values():
            process.not_forked(reason)


class _Unwanted:
    """A process that was forked, and is not wanted any more: killed and reaped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        registerReapProcessHandler(pid, self)

    def reapProcess(self) -> None:
        """Called by Twisted when a child has died."""
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                return
        unregisterReapProcessHandler(self._pid, self)

    def processEnded(self, status: int) -> None:
        """Nothing: nobody waits for its end."""
