"""How many events the reactor deals with in one turn.

Used by :mod:`dangad.tap`, like :mod:`dangad.host.clock`. Twisted's epoll reactor and asyncio's loop
ask for as many events as they have descriptors, and handle all of them before anything else. If ten
thousand clients disconnect at once, because a router fails, or send something at once, one turn
takes half a second, however little each client costs.

Here the reactor asks for few events. The kernel keeps the others, and hands them out next time,
before any descriptor that is ready again: epoll(7) goes round. So nobody waits longer than before.
Timed calls, and work divided by :mod:`dangad.host.turns`, come in between. Reactors that use
poll(2) or select(2) stay as they are: these calls cannot be asked for fewer events.

The call of epoll is also where a turn ends and the next one begins, so that the turns are measured
here, for :mod:`dangad.host.reactorwatch`.
"""

from __future__ import annotations

from typing import Any

from dangad.host.reactorwatch import LONG, ReactorWatch

EVENTS = 100
"""The most events in one turn, each a descriptor that can be read or written. They take 5 to 10 ms
if all of them are clients that disconnect."""


def take_few_events(reactor: Any) -> ReactorWatch:
    """Let `reactor` deal with at most `EVENTS` events in one turn, if it uses epoll.

    For a process that is dangad's own. Returns the lengths of the turns, which are measured from
    now on; if the reactor does not use epoll, they are not.
    """
    watch = ReactorWatch()
    # Neither Twisted nor asyncio has a public name for the epoll object.
    selector = getattr(getattr(reactor, "_asyncioEventloop", None), "_selector", None)
    for owner, name in ((reactor, "_poller"), (selector, "_selector")):
        poller = getattr(owner, name, None)
        if hasattr(poller, "register") and hasattr(poller, "fileno"):  # a poll object has none
            setattr(owner, name, ShortPoll(poller, watch))
            watch.measures = True
    return watch


class ShortPoll:
    """An epoll object that gives few events at a time, and marks the reactor's turns."""

    def __init__(self, poller: Any, watch: ReactorWatch) -> None:
        """Take the place of an epoll object.

        :param poller: the object that does everything else.
        :param watch: is told when a turn begins, and how long it was if it was long.
        """
        self._poller = poller
        self._watch = watch
        self._clock = watch.clock
        self._poll = poller.poll
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister

    def __getattr__(self, name: str) -> Any:
        """The poller's attributes that are rarely needed."""
        return getattr(self._poller, name)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> Any:
        """Poll as the epoll object does, but for at most `EVENTS` events."""
        watch, clock = self._watch, self._clock
        began = watch.began
        if began is not None and clock() - began >= LONG:
            watch.note(began, clock() - began)
        watch.began = None
        events = self._poll(timeout, EVENTS if not 0 < maxevents < EVENTS else maxevents)
        watch.began = clock()
        return events
