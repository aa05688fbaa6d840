"""How long a client may take to send a request: as long as it gets on with it.

Known by :mod:`dangad.server.factory`; :mod:`dangad.server.connection` tells when a part of a
request has come, and when nothing is left of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

LEAST = 2**16
"""Bytes of a begun request, or its end, that must come in ..."""
BOX_TIME = 60.0
"""... so many seconds, not counting those in which the client is not read."""
LOOK_INTERVAL = 10.0
"""Seconds between two looks, by which it may become longer."""


class IBoxSender(Interface):
    """Whoever sends boxes."""

    boxes: int = Attribute("How many have come whole.")
    begun: int = Attribute("How many bytes have come of the next.")
    is_read: bool = Attribute("Whether it is read now.")

    def box_is_late() -> None:
        """End it: it does not get on with a box that it has begun."""


class _Mark(NamedTuple):
    """How far a sender was at some time."""

    boxes: int
    begun: int
    at: float


class BoxWatch:
    """Looks now and then at those who have begun a box."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: where the time comes from."""
        self._clock = clock
        #: How far each sender was when it got on last.
        self._marks: dict[IBoxSender, _Mark] = {}
        #: The next look, if there is anybody to look at.
        self._alarm: IDelayedCall | None = None

    def watch(self, sender: IBoxSender) -> None:
        """`sender` has begun a box."""
        self._marks[sender] = _Mark(sender.boxes, sender.begun, self._clock.seconds())
        if self._alarm is None:
            self._alarm = self._clock.callLater(LOOK_INTERVAL, self._look)

    def forget(self, sender: IBoxSender) -> None:
        """`sender` has sent nothing but whole boxes, or is gone."""
        self._marks.pop(sender, None)
        if not self._marks and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        now = self._clock.seconds()
        self._alarm = self._clock.callLater(LOOK_INTERVAL, self._look)
        late = []
        for sender, mark in self._marks.items():
            boxes, begun = sender.boxes, sender.begun
            if boxes != mark.boxes or begun >= mark.begun + LEAST or not sender.is_read:
                self._marks[sender] = _Mark(boxes, begun, now)
            elif now >= mark.at + BOX_TIME:
                late.append(sender)
        for sender in late:
            self.forget(sender)
            sender.box_is_late()
