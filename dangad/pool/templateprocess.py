"""One template's process, and the socket for its orders and reports.

Kept by :mod:`dangad.pool.template`, which decides what follows from a report. At the other end is
:mod:`dangad.worker.template`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.process import registerReapProcessHandler, unregisterReapProcessHandler
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from zope.interface import implementer

from dangad.pool.launch import BOOTSTRAP
from dangad.pool.obituary import how_the_process_ended
from dangad.pool.witness import name_senders, receive
from dangad.scheduler.clockcalls import cancel
from dangad.text import printable
from dangad.wire.commands import TEMPLATE_ORDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from dangad.pool.launch import WorkerSettings

log = Logger()

MOST_REPORTS = 100
"""The most reports that are read in one turn of the reactor."""
REPORT_SIZE = 2000
"""Bytes of the longest report."""
MOST_LINES = 100
"""The most lines of a template's output that are logged."""
LONGEST_LINE = 1000
"""The most characters of a line of a template's output that are logged."""
ABANDONED = 1.0
"""Seconds in which a template that has closed its socket must be dead."""


class Start(Protocol):
    """Starts a template's process; raises OSError if there is no room for another process."""

    def __call__(self, protocol: ProcessProtocol, orders: int, *, preloads: bool) -> object:
        """Start it, with the socket for its orders; with `preloads` it imports the job modules."""


def start_template(
    reactor: Any,
    settings: WorkerSettings,
    protocol: ProcessProtocol,
    orders: int,
    *,
    preloads: bool,
) -> None:
    """Start a template's process. ampoule's starter would not pass on the socket for its orders.

    :param settings: the settings of the workers.
    :param protocol: is told of the process.
    :param orders: the template's end of the socket.
    :param preloads: whether the template imports the job modules.
    :raises OSError: there is no room for another process.
    """
    process = reactor.spawnProcess(
        protocol,
        sys.executable,
        [sys.executable, "-c", BOOTSTRAP, "dangad-template"],
        env=settings.process_environment(),
        uid=settings.uid,
        gid=settings.gid,
        childFDs={0: "w", 1: "r", 2: "r", TEMPLATE_ORDERS: orders},
    )
    process.write(settings.process_input(template=True, preloads=preloads))


@implementer(IReadDescriptor)
class TemplateProcess(ProcessProtocol):
    """One template: its process, and the socket for its orders and reports.

    The template is gone when the process is dead and all its forks have closed the socket. If the
    process has closed the socket and does not die, because it is traced or waits for a disk, it
    counts as gone after :data:`ABANDONED` seconds.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        reported: Callable[[TemplateProcess, bytes, int], object],
        gone: Callable[[TemplateProcess, str], object],
        reaped: Callable[[TemplateProcess], object],
    ) -> None:
        """Begin without a process.

        :param reported: called with each report, and the id of the process that sent it.
        :param gone: called once the template is gone, with words that follow "the template".
        :param reaped: called when the process is reaped.
        """
        self._reactor = reactor
        self._reported = reported
        self._gone = gone
        self._reaped = reaped
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        name_senders(self._ours)
        #: The id of the process; 0 before there is one.
        self.pid = 0
        #: Whether it has reported that it can fork.
        self.ready = False
        #: Whether it was killed because it did nothing in time.
        self.late = False
        #: How many forks in a row have failed.
        self.vain = 0
        #: The call after which it counts as gone, even if the process is not dead.
        self._abandon: IDelayedCall | None = None
        #: Whether `gone` was called.
        self._told = False
        #: How many messages over the socket were not the template's or its forks'.
        self.strange = 0
        #: How the process ended; None while it lives.
        self._end: str | None = None
        #: How many more lines of its output are logged.
        self._lines_left = MOST_LINES
        #: The beginning of a line of output that has not ended.
        self._printed = b""
        reactor.addReader(self)

    @property
    def dead(self) -> bool:
        """Whether the process is dead."""
        return self._end is not None

    def order(self, number: int, descriptors: Sequence[int]) -> None:
        """Order a worker.

        :raises OSError: the order cannot be written.
        """
        socket.send_fds(self._ours, [b"%d" % number], descriptors)

    def finish(self) -> None:
        """Send no more orders: the process exits when it has carried out its orders."""
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill the process."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def close(self) -> None:
        """Wait for no more reports."""
        if not self.closed:
            self._reactor.removeReader(self)
            self._ours.close()
        if self.dead:
            self._tell()
        elif self.pid and self._abandon is None:
            self._abandon = self._reactor.callLater(ABANDONED, self._tell)

    @property
    def closed(self) -> bool:
        """Whether the socket is closed."""
        return self._ours.fileno() == -1

    def _tell(self) -> None:
        cancel(self._abandon)
        self._abandon = None
        if not self._told:
            self._told = True
            self._gone(self, self._end or "does not end")

    # Called by the reactor.

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._ours.fileno()

    def logPrefix(self) -> str:
        """The name for the reactor's log."""
        return "template"

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: `doRead` notices the end, too."""

    def doRead(self) -> None:
        """Take the reports that have arrived."""
        for _ in range(MOST_REPORTS):
            try:
                report, sender = receive(self._ours, REPORT_SIZE)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it has left an order unread; its reports can still be read
            except OSError:
                report, sender = b"", 0
            if not report:
                self.kill()
                self.close()
                return
            try:
                self._reported(self, report, sender)
            except Exception:  # noqa: BLE001 - the reactor would stop reading
                log.failure("a report of template {pid} could not be dealt with", pid=self.pid)
            if self.closed:
                return

    def connectionMade(self) -> None:
        """Note the process that was started."""
        self.pid = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Log the first lines that it prints."""
        *lines, self._printed = (self._printed + data).split(b"\n")
        if len(self._printed) > LONGEST_LINE:
            lines.append(self._printed)
            self._printed = b""
        for line in lines[: self._lines_left]:
            self._lines_left -= 1
            text = printable(line.decode(errors="replace"))[:LONGEST_LINE]
            log.info("template {pid}: {line}", pid=self.pid, line=text)

    def processExited(self, reason: Failure) -> None:
        """The process is dead; its forks may not have reported themselves yet."""
        self._end = how_the_process_ended(reason)
        for fd in list(self.transport.pipes):
            self.transport.closeChildFD(fd)
        self._reaped(self)
        if self.closed:
            self._tell()


class Unwanted:
    """A fork that is not wanted any more: it is killed and reaped."""

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
        """Do nothing: nobody waits for its end."""
