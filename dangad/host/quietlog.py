"""Log lines that a peer can cause at will: the first few are written, the others counted.

Used wherever mistakes of clients, jobs or operators are logged: by the connections in
:mod:`dangad.server.factory` and :mod:`dangad.operators.control`, and by the scheduler. It knows
only a clock and a :class:`~twisted.logger.Logger`.

Usage::

    log = Logger()
    quiet = QuietLog(clock, log)  # one for each module that logs, made where the clock is known
    quiet.warn("garbage", peer_of(address), "{peer} sent {what}; closing", peer=peer, what=what)

The line is written if it is among the first of its kind and peer in :data:`INTERVAL` seconds. After
this time the last line that was held back is written, with the number of all of them::

    client 192.0.2.7 sent a key of 300 bytes; closing (and 7499 more of this kind in 10 s)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel

if TYPE_CHECKING:
    from collections.abc import Hashable

    from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
    from twisted.logger import Logger

INTERVAL = 10.0
"""Seconds in which few lines of one kind and peer are written, and the others counted."""
MOST_PEERS = 100
"""The most pairs of kind and peer that are told apart; further peers of a kind count as one."""


class _Window:
    """The lines of one kind and peer from one moment on."""

    __slots__ = ("ends_at", "held", "last", "written")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        #: How many lines were written.
        self.written = 0
        #: How many lines were held back.
        self.held = 0
        #: Level, format and fields of the last line that was held back.
        self.last: tuple[Any, str, dict[str, Any]] | None = None


class QuietLog:
    """Writes to one logger, at a bounded rate for each kind of line and each peer.

    Whatever happens, at most ``burst + 1`` lines are written for a kind and peer in
    :data:`INTERVAL` seconds, and at most :data:`MOST_PEERS` kinds and peers are remembered.

    An alarm is set only while lines are held back: an idle log leaves nothing on the clock.
    """

    def __init__(self, clock: IReactorTime, log: Logger, burst: int = 1) -> None:
        """Begin with nothing said.

        :param clock: where the time comes from.
        :param log: where the lines go.
        :param burst: how many lines of one kind and peer are written; the others are counted.
        """
        self._clock = clock
        self._log = log
        self._burst = burst
        #: The windows that are open, the oldest first.
        self._windows: dict[tuple[str, Hashable], _Window] = {}
        #: The alarm at the end of the oldest window; None while no line is held back.
        self._alarm: IDelayedCall | None = None

    def warn(self, kind: str, peer: Hashable, format: str, /, **fields: object) -> None:
        """Log a warning, as ``Logger.warn`` does, or count it.

        :param kind: lines of the same kind and peer are counted together.
        :param peer: who caused the line; the object is kept for :data:`INTERVAL` seconds.
        :param format: the text, with the names of `fields` in braces.
        """
        self._say(LogLevel.warn, kind, peer, format, fields)

    def info(self, kind: str, peer: Hashable, format: str, /, **fields: object) -> None:
        """Log as ``Logger.info`` does, or count it; the parameters are those of :meth:`warn`."""
        self._say(LogLevel.info, kind, peer, format, fields)

    def count(self, kind: str, peer: Hashable) -> bool:
        """Count a line without its text, if one of its kind and peer is held back already.

        In a flood this is cheaper than making each line. Whether the line was counted; if not, it
        is to be logged.
        """
        now = self._clock.seconds()
        self._close_windows(now)
        window = self._windows.get((kind, peer))
        if window is None and len(self._windows) >= MOST_PEERS:
            window = self._windows.get((kind, None))
        if window is None or not window.held:
            return False
        window.held += 1
        return True

    def flush(self) -> None:
        """Write the counts of held lines, and forget everything: the server stops."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        windows, self._windows = self._windows, {}
        for window in windows.values():
            self._tell_rest(window)

    def _say(
        self,
        level: Any,
        kind: str,
        peer: Hashable,
        format: str,
        fields: dict[str, Any],
    ) -> None:
        now = self._clock.seconds()
        self._close_windows(now)
        window = self._windows.get((kind, peer))
        if window is None and len(self._windows) >= MOST_PEERS:
            peer = None
            window = self._windows.get((kind, peer))
        if window is None:
            window = self._windows[kind, peer] = _Window(now + INTERVAL)
        if window.written < self._burst:
            window.written += 1
            self._log.emit(level, format, **fields)
            return
        window.held += 1
        window.last = level, format, fields
        if self._alarm is None:
            self._alarm = self._clock.callLater(window.ends_at - now, self._ring)

    def _ring(self) -> None:
        """Close the windows that are over, and wait for the end of the next one with held lines."""
        self._alarm = None
        now = self._clock.seconds()
        self._close_windows(now)
        for window in self._windows.values():
            if window.held:
                self._alarm = self._clock.callLater(max(0.0, window.ends_at - now), self._ring)
                return

    def _close_windows(self, now: float) -> None:
        """Write the counts of the windows that are over.

        A count is a line, too: it is the first line of the next window.
        """
        while self._windows:
            key = next(iter(self._windows))
            window = self._windows[key]
            if window.ends_at > now:
                return
            del self._windows[key]
            if self._tell_rest(window):
                follower = self._windows[key] = _Window(now + INTERVAL)
                follower.written = self._burst

    def _tell_rest(self, window: _Window) -> bool:
        """Write the last line that was held back, with their number; whether there was any."""
        if window.last is None:
            return False
        level, format, fields = window.last
        if window.held > 1:
            format += " (and {held_back} more of this kind in {interval:g} s)"
            fields = {**fields, "held_back": window.held - 1, "interval": INTERVAL}
        self._log.emit(level, format, **fields)
        return True


def peer_of(address: IAddress | None) -> str:
    """The peer under which lines of a connection are counted: its host, without the port.

    A client that connects anew for each line has a new port each time.
    """
    host = getattr(address, "host", None)
    return host if isinstance(host, str) else "a UNIX socket"
