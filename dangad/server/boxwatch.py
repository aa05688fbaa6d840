"""How long a client may take to send a request: as long as it makes progress.

Made by :mod:`dangad.server.factory`. :mod:`dangad.server.holdings` tells when a part of a request
has come, and when the request is complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

LEAST = 2**16
"""Bytes of a begun request that must come in `BOX_TIME`, unless its end comes."""
BOX_TIME = 60.0
"""Seconds in which `LEAST` bytes of a begun request, or its end, must come. Time in which the
client is not read does not count."""
LOOK_INTERVAL = 10.0
"""Seconds between two checks of the senders; a sender may get up to this time more."""


class IBoxSender(Interface):
    """A client that sends boxes."""

    boxes: int = Attribute("How many boxes have come whole.")
    begun: int = Attribute("How many bytes of the next box have come.")
    is_read: bool = Attribute("Whether the client is read now.")

    def box_is_late() -> None:
        """Close the connection: the client does not finish its box in time."""


class _Mark(NamedTuple):
    """The progress of a sender at some time."""

    boxes: int
    begun: int
    at: float


class BoxWatch:
    """Regularly checks the senders that have begun a box."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the source of time."""
        self._clock = clock
        #: The last progress of each sender.
        self._marks: dict[IBoxSender, _Mark] = {}
        #: The call for the next check; None if there is no sender to check.
        self._alarm: IDelayedCall | None = None

    def watch(self, sender: IBoxSender) -> None:
        """Watch `sender`, which has begun a box."""
        self._marks[sender] = _Mark(sender.boxes, sender.begun, self._clock.seconds())
        if self._alarm is None:
            self._alarm = self._clock.callLater(LOOK_INTERVAL, self._look)

    def forget(self, sender: IBoxSender) -> None:
        """Forget `sender`, which has sent only complete boxes, or is gone."""
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
