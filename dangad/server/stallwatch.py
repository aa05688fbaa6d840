"""How long a client may leave its answers unread: as long as it makes progress.

Used by :mod:`dangad.server.connection` while a client has more unread bytes than a socket's buffer
holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

STALL_TIME = 300.0
"""Seconds for which a client may leave its answers unread, while its jobs fill the queue."""
STALL_LEAST = 2**16
"""Bytes of its answers that a client must read in `STALL_TIME`, unless it reads all of them."""
LOOK_INTERVAL = 30.0
"""Seconds between two checks of a client; a client may get up to this time more."""


class StallWatch:
    """Watches one client while answers wait to be read by it."""

    __slots__ = ("_alarm", "_clock", "_cut_off", "_delivered", "_read", "_read_at")

    def __init__(
        self,
        clock: IReactorTime,
        delivered: Callable[[], int],
        cut_off: Callable[[int, float], object],
    ) -> None:
        """Watch nobody yet.

        :param clock: the source of time.
        :param delivered: returns a count of the bytes that the client has read.
        :param cut_off: called once if the client stalls, with the bytes that it has read and the
            seconds that this took.
        """
        self._clock = clock
        self._delivered = delivered
        self._cut_off = cut_off
        #: The count of bytes at its last progress.
        self._read = 0
        #: When its last progress was.
        self._read_at = 0.0
        #: The call for the next check; None while nothing is unread.
        self._alarm: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to watch: something is unread."""
        self._read, self._read_at = self._delivered(), self._clock.seconds()
        if self._alarm is None:
            self._alarm = self._clock.callLater(LOOK_INTERVAL, self._look)

    def stop(self) -> None:
        """End the watch: everything is read, or the client is gone."""
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
