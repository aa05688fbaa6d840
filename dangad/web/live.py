"""Keeps open pages up to date, by server-sent events.

All viewers of the same address share one rendering a second, and there are few addresses. If
rendering takes long, there is more time between two updates. Nothing runs while nobody looks. A
viewer that does not read is sent nothing, and after a while its connection is closed, so no more
than one update is held for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure
    from twisted.web.server import Request

    from dangad.host.quietlog import QuietLog

MAX_VIEWERS = 50
"""Pages that are kept up to date at a time; others stay as they were when they were opened."""
MAX_STREAMS = 8
"""Different addresses that are kept up to date at a time: each costs a rendering a second."""
INTERVAL = 1.0
"""Seconds between two updates, at least."""
MAX_INTERVAL = 5.0
"""Seconds between two updates, at most."""
ROUND_TIME = 0.5
"""Seconds after which a round ends; the addresses that are left come first in the next one."""
SHARE = 0.1
"""The share of the time in which pages may be rendered: slow rounds have longer pauses."""
SLOW_ROUNDS = 30
"""Updates that a viewer may miss because it does not read."""
QUIET_ROUNDS = 15
"""Updates without a change after which a viewer is sent a sign of life."""


@dataclass(frozen=True, slots=True)
class Update:
    """What viewers of one address are sent."""

    page: bytes
    """The part of the page that is kept up to date, as an event."""
    sample: bytes = b""
    """The latest sample for the curves, as an event; empty if there is none."""

    @classmethod
    def of(cls, body: bytes, sample: str) -> Update:
        """The events that all viewers share.

        :param body: the HTML.
        :param sample: JSON; empty if there is no sample.
        """
        return cls(_event(body), _event(sample.encode(), b"sample") if sample else b"")


@dataclass(slots=True)
class _Stream:
    """The viewers of one address."""

    render: Callable[[], Awaitable[Update]]
    """Makes the next update."""
    viewers: dict[Viewer, None] = field(default_factory=dict)
    """Who looks."""


@implementer(IPushProducer)
class Viewer:
    """One open page, as the connection's producer."""

    def __init__(self, request: Any) -> None:
        self._request = request
        #: Whether its connection takes no more for now.
        self._full = False
        #: Updates that it has missed in a row because its connection was full.
        self._missed = 0
        #: Updates in a row in which nothing had changed.
        self._quiet = 0
        #: The event with the page that it was sent last.
        self._shown = b""

    def begin(self) -> None:
        """Send the head of the stream."""
        self._request.setHeader(b"Content-Type", b"text/event-stream; charset=utf-8")
        self._request.setHeader(b"Cache-Control", b"no-store")
        self._request.setHeader(b"X-Accel-Buffering", b"no")
        self._request.registerProducer(self, True)
        self._request.write(b": dangad\n\n")

    def send(self, update: Update) -> None:
        """Send an update, as far as it differs from the last one; close the connection if slow."""
        if self._full:
            self._missed += 1
            if self._missed > SLOW_ROUNDS:
                self._request.transport.abortConnection()
            return
        self._missed = 0
        parts = []
        if update.page != self._shown:
            self._shown = update.page
            parts.append(update.page)
        if update.sample:
            parts.append(update.sample)
        self._quiet = 0 if parts else self._quiet + 1
        if self._quiet >= QUIET_ROUNDS:
            self._quiet = 0
            parts.append(b": nothing new\n\n")
        if parts:
            self._request.write(b"".join(parts))

    def pauseProducing(self) -> None:
        """Send nothing, because the connection is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Send again."""
        self._full = False

    def stopProducing(self) -> None:
        """The connection is gone; :class:`Live` hears of it otherwise."""


class Live:
    """All open pages, and the call that keeps them up to date while there are any."""

    def __init__(self, clock: Any, turn: Callable[[], Deferred[str]], quiet: QuietLog) -> None:
        """Begin with no pages.

        :param clock: the source of time.
        :param turn: fires when a page may be made.
        :param quiet: where failures of pages are logged.
        """
        self._clock = clock
        self._turn = turn
        self._quiet = quiet
        #: Begins the next round; None while a round goes on, or nobody looks.
        self._alarm: IDelayedCall | None = None
        #: Whether a round goes on.
        self._going = False
        #: The viewers by address; those of the address that was updated last are the last.
        self._streams: dict[str, _Stream] = {}

    @property
    def viewers(self) -> int:
        """How many pages are kept up to date."""
        return sum(len(stream.viewers) for stream in self._streams.values())

    def watch(
        self, request: Request, address: str, render: Callable[[], Awaitable[Update]]
    ) -> bool:
        """Keep a page up to date until its connection is closed.

        :param request: the page's request; nothing was written to it yet.
        :param address: pages of the same address show the same.
        :param render: makes an update.
        :return: whether there was room; if not, nothing has happened.
        """
        new = address not in self._streams
        if self.viewers >= MAX_VIEWERS or (new and len(self._streams) >= MAX_STREAMS):
            return False
        viewer = Viewer(request)
        stream = self._streams.setdefault(address, _Stream(render))
        stream.viewers[viewer] = None
        request.notifyFinish().addBoth(lambda _: self._gone(address, viewer))
        viewer.begin()
        if self._alarm is None and not self._going:
            self._alarm = self._clock.callLater(INTERVAL, self._round)
        return True

    def _gone(self, address: str, viewer: Viewer) -> None:
        stream = self._streams[address]
        del stream.viewers[viewer]
        if not stream.viewers:
            del self._streams[address]
        if not self._streams and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _round(self) -> None:
        """Update all pages; the next round is set only when this one is over."""
        self._alarm = None
        self._going = True
        began = self._clock.seconds()
        round_ = Deferred.fromCoroutine(self._update_all(began))
        round_.addErrback(self._failed)
        round_.addBoth(lambda _: self._rest(began))

    def _rest(self, began: float) -> None:
        self._going = False
        if self._streams:
            took = self._clock.seconds() - began
            pause = min(max(INTERVAL, took * (1 / SHARE - 1)), MAX_INTERVAL)
            self._alarm = self._clock.callLater(pause, self._round)

    async def _update_all(self, began: float) -> None:
        for address in list(self._streams):
            await self._turn()
            stream = self._streams.pop(address, None)
            if stream is None:  # its viewers have left meanwhile
                continue
            self._streams[address] = stream
            await Deferred.fromCoroutine(self._update(stream)).addErrback(self._failed)
            if self._clock.seconds() - began > ROUND_TIME:
                return

    async def _update(self, stream: _Stream) -> None:
        update = await stream.render()
        for viewer in list(stream.viewers):
            viewer.send(update)

    def _failed(self, failure: Failure) -> None:
        """Log that a page has failed; the others go on."""
        self._quiet.warn(
            "failed update", None, "a page could not be kept up to date", log_failure=failure
        )


def _event(data: bytes, name: bytes = b"") -> bytes:
    """A server-sent event."""
    head = b"event: %s\n" % name if name else b""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return head + b"".join(b"data: %s\n" % line for line in lines) + b"\n"
