"""Whether new connections are accepted: only as many as there are file descriptors for.

Before the first step of a job's way: :mod:`dangad.server.factory` tells the gate of every
connection that comes and goes, and the gate has the listening ports read, or not. While they are
not, new clients wait in the kernel's backlog, and are served when others have gone.

Left alone, Twisted accepts without end, and once the process is out of descriptors it closes
every client that comes, or spins; and no worker can be started any more.
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
"""Connections that a port may accept in one go, once the gate knows it."""
BACKLOG = 4096
"""Connections that the kernel keeps waiting for a port: what Linux allows by default."""
TWISTED_BACKLOG = 50
"""What ports have if their endpoint says nothing else."""
OVERSHOOT = BURST + 20
"""How many those can become, since Twisted adds 20 to a number that was reached."""
MARGIN = 32
"""Descriptors for what is open for a moment: a worker's pipes at its birth, a look at /proc."""
OPEN_FILES = "/proc/self/fd"
"""The folder that has an entry for each open file of this process."""
LOOK_INTERVAL = 1.0
"""Seconds between two looks at the descriptors, while no connection comes or goes."""
SAY_INTERVAL = 60.0
"""Seconds between two log lines about it, when the gate shuts and opens again and again."""


class Descriptors:
    """The file descriptors of this process, as the system tells about them."""

    def limit(self) -> int:
        """How many there may be."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def open_now(self) -> int:
        """How many there are; without ``/proc``, how many were opened before any was closed."""
        try:
            return len(os.listdir(OPEN_FILES))
        except OSError:
            return self.lowest_free()

    def lowest_free(self) -> int:
        """The number that the next would have: all lower ones are taken.

        :raises OSError: there can be no other, in this process or on the machine.
        """
        number = os.open(os.devnull, os.O_RDONLY)
        os.close(number)
        return number


def raise_limit() -> None:
    """Have as many descriptors as the system allows this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class AcceptGate:
    """Stops the ports while there is no room for more connections.

    The room is the limit of open files, less what was open when the gate began, less a
    reserve: what the workers and the operators may come to need, what a port accepts after it
    was told to stop, and a margin. Both the limit and the workers' number may change at any
    time, and the room with them.

    Counting could be wrong, if descriptors leak or the whole machine runs out of them. Twisted
    tells nobody of an ``accept`` that failed for that. So the gate looks at each connection and
    each second whether descriptors run short; it then stops the ports, too, until they do not.
    What runs out from one look to the next costs those clients their connection that come in
    between: Twisted closes them.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ports: Sequence[IListeningPort],
        reserve: Callable[[], int],
        descriptors: Descriptors | None = None,
    ) -> None:
        """Begin with no connections, and open.

        :param clock: where the time comes from.
        :param ports: where clients connect; others may be added to them at any time.
        :param reserve: how many descriptors are to be kept for other things now.
        :param descriptors: those of this process, or of none in a test.
        """
        #: Called while clients wait for room: closes a connection that has nothing to do, and
        #: gives False if there is none.
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
        #: Whether the log knows of that.
        self._said = False
        #: When the log was told last.
        self._said_at = -SAY_INTERVAL

    def start(self, wanted: int) -> None:
        """Count what is open, and look at it from now on.

        :param wanted: how many connections there should be room for; if there is not, the log
            says so.
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
        """Leave the ports as they are."""
        if self._looking.running:
            self._looking.stop()
        self._shut = False

    @property
    def room(self) -> int:
        """For how many connections there is room; for one at least."""
        kept = self._base + self._reserve() + OVERSHOOT + MARGIN
        return max(1, self._descriptors.limit() - kept)

    def entered(self) -> None:
        """There is one connection more."""
        self._inside += 1
        self._look()

    def left(self) -> None:
        """There is one connection less."""
        self._inside -= 1
        if self._shut:
            self._look()

    def _look(self) -> None:
        """Stop the ports if there is no room, and start them if there is again."""
        self._prepare_ports()
        if self._inside >= self.room:
            self._stop_ports("there is no room for more")
            self._close_idle()
        elif self._is_short():
            self._stop_ports("something else has used up the descriptors")
        elif self._shut:
            self._start_ports()

    def _close_idle(self) -> None:
        """Close some connections that have nothing to do, if clients wait for one."""
        if self.make_room is None or not any(_somebody_waits(port) for port in self._ports):
            return
        for _ in range(BURST):
            if not self.make_room():
                return

    def _is_short(self) -> bool:
        """Whether a port that accepts could run out of descriptors, whatever the room."""
        try:
            return self._descriptors.lowest_free() + OVERSHOOT >= self._descriptors.limit()
        except OSError:
            return True

    def _prepare_ports(self) -> None:
        """Have each port accept few connections in one go, and keep many waiting.

        Twisted's ports do not look, in the middle of a burst, whether they were told to stop.
        Beyond a backlog, clients fail on a UNIX socket, if they do not block, and try again for
        seconds by TCP. The kernel takes a new length for it at any time, on an inherited socket
        as well.
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
