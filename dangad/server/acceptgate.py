"""Decides whether new connections are accepted: only as many as there are file descriptors for.

:mod:`dangad.server.factory` tells the gate of every connection that comes or goes, and the gate
starts and stops the listening ports. While they are stopped, new clients wait in the kernel's
backlog, and are served when others have left.

Twisted itself accepts without limit. When the process is out of descriptors, Twisted closes every
new connection, or spins, and no worker can be started any more.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
from typing import TYPE_CHECKING

from twisted.internet import tcp
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IListeningPort, IReactorTime

log = Logger()

BURST = 10
"""Connections that a port may accept in one go, when the gate controls it."""
BACKLOG = 4096
"""Connections that may wait in the kernel for a port: the default maximum of Linux."""
TWISTED_BACKLOG = 50
"""Twisted's default backlog, which ports have if their endpoint sets none."""
OVERSHOOT = BURST + 20
"""The most connections that a port accepts in one go: Twisted may add 20 to its number."""
MARGIN = 32
"""Descriptors kept for short uses: the pipes of a worker that starts, reads of /proc."""
OPEN_FILES = "/proc/self/fd"
"""The folder that has an entry for each open file of this process."""
LOOK_INTERVAL = 1.0
"""Seconds between two checks of the descriptors, while no connection comes or goes."""
SAY_INTERVAL = 60.0
"""Seconds between two log lines about the gate, when it closes and opens again and again."""


class Descriptors:
    """The file descriptors of this process, as the system counts them."""

    def limit(self) -> int:
        """The limit of descriptors."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def open_now(self) -> int:
        """The number of open descriptors; without ``/proc``, an estimate by the lowest free one."""
        try:
            return len(os.listdir(OPEN_FILES))
        except OSError:
            return self.lowest_free()

    def lowest_free(self) -> int:
        """The number of the next descriptor; all lower ones are in use.

        :raises OSError: no descriptor is left, in this process or on the machine.
        """
        number = os.open(os.devnull, os.O_RDONLY)
        os.close(number)
        return number


def raise_limit() -> None:
    """Raise the limit of descriptors as far as the system allows this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class AcceptGate:
    """Stops the ports while there is no room for more connections.

    The room is the limit of open files, less the files that were open when the gate began, less a
    reserve. The reserve is for workers and operators, for connections that a port accepts after it
    was told to stop, and a margin. The limit and the number of workers may change at any time, and
    the room with them.

    Counting may be wrong, if descriptors leak or the whole machine runs out of them. Twisted does
    not report an ``accept`` that fails for this reason. So the gate also checks, at each connection
    and each second, whether descriptors run short, and stops the ports while they do. If they run
    out between two checks, Twisted closes the connections of clients that come in between.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ports: Sequence[IListeningPort],
        reserve: Callable[[], int],
        descriptors: Descriptors | None = None,
    ) -> None:
        """Begin with no connections, and open.

        :param clock: the source of time.
        :param ports: the clients' ports; more may be added at any time.
        :param reserve: returns how many descriptors to keep for other purposes now.
        :param descriptors: the descriptors of this process, or a fake in a test.
        """
        #: Called while clients wait for room: closes an idle connection; returns False if no
        #: connection is idle.
        self.make_room: Callable[[], bool] | None = None
        self._clock = clock
        self._ports = ports
        self._reserve = reserve
        self._descriptors = descriptors or Descriptors()
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        #: How many connections there are.
        self._inside = 0
        #: How many descriptors were open at the start.
        self._base = 0
        #: Whether the ports are stopped.
        self._shut = False
        #: Whether the log says that the ports are stopped.
        self._said = False
        #: When the last line was logged.
        self._said_at = -SAY_INTERVAL

    def start(self, wanted: int) -> None:
        """Count the open descriptors, and check them from now on.

        :param wanted: the number of connections for which there should be room; if there is not,
            the log says so.
        """
        self._base = self._descriptors.open_now()
        if self.room < wanted:
            log.warn(
                "the limit of {limit} open files leaves room for {room} connections, and "
                "--max-connections is {wanted}: raise it (LimitNOFILE=, ulimit -n)",
                limit=self._descriptors.limit(),
                room=self.room,
                wanted=wanted,
            )
        self._looking.start(LOOK_INTERVAL)

    def stop(self) -> None:
        """End the checks, and leave the ports as they are."""
        if self._looking.running:
            self._looking.stop()
        self._shut = False

    @property
    def room(self) -> int:
        """The number of connections for which there is room, at least 1."""
        kept = self._base + self._reserve() + OVERSHOOT + MARGIN
        return max(1, self._descriptors.limit() - kept)

    def entered(self) -> None:
        """Count one connection more."""
        self._inside += 1
        self._look()

    def left(self) -> None:
        """Count one connection less."""
        self._inside -= 1
        if self._shut:
            self._look()

    def _look(self) -> None:
        """Stop the ports if there is no room, and start them when there is room again."""
        self._prepare_ports()
        if self._inside >= self.room:
            self._stop_ports("there is no room for more")
            self._close_idle()
        elif self._is_short():
            self._stop_ports("something else has used up the descriptors")
        elif self._shut:
            self._start_ports()

    def _close_idle(self) -> None:
        """Close some idle connections, if clients wait."""
        if self.make_room is None or not any(_somebody_waits(port) for port in self._ports):
            return
        for _ in range(BURST):
            if not self.make_room():
                return

    def _is_short(self) -> bool:
        """Whether descriptors run short, regardless of the counted room."""
        try:
            return self._descriptors.lowest_free() + OVERSHOOT >= self._descriptors.limit()
        except OSError:
            return True

    def _prepare_ports(self) -> None:
        """Make each port accept few connections in one go, and let many wait.

        Twisted's ports do not notice in the middle of a burst that they were stopped. When the
        backlog is full, clients of a UNIX socket fail if they do not block, and TCP clients try
        again after seconds. The kernel accepts a new backlog at any time, for an inherited socket,
        too.
        """
        for port in self._ports:
            if not isinstance(port, tcp.Port):
                continue
            port.numberAccepts = BURST
            if port.backlog == TWISTED_BACKLOG:
                port.backlog = BACKLOG
                port.socket.listen(BACKLOG)

    def _stop_ports(self, reason: str) -> None:
        self._shut = True
        for port in self._ports:
            if IPushProducer.providedBy(port):
                port.pauseProducing()
        if self._said or self._clock.seconds() < self._said_at + SAY_INTERVAL:
            return
        self._said = True
        self._said_at = self._clock.seconds()
        log.warn(
            "new connections wait: {inside} are open, and {reason}; of {limit} open files "
            "{room} are for connections. To have more, raise the limit (LimitNOFILE=, ulimit -n)",
            inside=self._inside,
            reason=reason,
            limit=self._descriptors.limit(),
            room=self.room,
        )

    def _start_ports(self) -> None:
        self._shut = False
        for port in self._ports:
            if IPushProducer.providedBy(port):
                port.resumeProducing()
        if self._said:
            self._said = False
            log.info(
                "connections are accepted again: {inside} are open, and there is room for {room}",
                inside=self._inside,
                room=self.room,
            )


def _somebody_waits(port: IListeningPort) -> bool:
    """Whether a client waits for `port` to accept it."""
    if not isinstance(port, tcp.Port):
        return False
    waiting = select.poll()
    waiting.register(port.socket, select.POLLIN)
    return bool(waiting.poll(0))
