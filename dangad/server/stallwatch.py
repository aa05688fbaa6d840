"""How long a client may leave its answers unread: as long as it gets on with them.

Used by :mod:`dangad.server.connection` while more waits for a client than a socket's buffer holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

STALL_TIME = 300.0
"""Seconds for which a client may leave its answers unread, while its jobs fill the queue."""
STALL_LEAST = 2**16
"""Bytes that it must read of them in that time, if not all."""
LOOK_INTERVAL = 30.0
"""Seconds between two looks, by which the time may become longer."""


class StallWatch:
    """Watches one client while something waits for it to be read."""

    __slots__ = ("_alarm", "_clock", "_cut_off", "_delivered", "_read", "_read_at")

    def __init__(
        self,
        clock: IReactorTime,
        delivered: Callable[[], int],
        cut_off: Callable[[int, float], object],
    ) -> None:
        """Watch nobody yet.

        :param clock: where the time comes from.
        :param delivered: how many bytes the client has read by now, from any beginning.
        :param cut_off: called once if it stalls, with the bytes that it has read in so many
            seconds.
        """
        self._clock = clock
        self._delivered = delivered
        self._cut_off = cut_off
        #: The bytes that the client had read when it got on last.
        self._read = 0
        #: When that was.
        self._read_at = 0.0
        #: The next look, while it watches.
        self._alarm: IDelayedCall | None = None

    def start(self) -> None:
        """Something waits to be read from now on."""
        self._read, self._read_at = self._delivered(), self._clock.seconds()
        if self._alarm is None:
            self._alarm = self._clock.callLater(LOOK_INTERVAL, self._look)

    def stop(self) -> None:
        """All is read, or the client is gone."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        now, read = self._clock.seconds(), self._delivered()
        if read >= self._read + STALL_LEAST:
            self._read, self._read_at = read, now
        if now < self._read_at + STALL_TIME:
            self._alarm = self._clock.callLater(LOOK_INTERVAL, self._look)
        else:
            self._cut_off(read - self._read, now - self._read_at)
