"""Calls to clients and to the log, which wait until the scheduler's own state is whole.

Kept by :mod:`dangad.scheduler.dispatcher`. An event is decided first and told last: a client that
hears of it may submit, cancel or raise, and never meets a half-changed state. If a call raises,
this is logged, and the other calls are still made.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = Logger()


class Outbox:
    """The calls that are still to be made, in order."""

    __slots__ = ("_sending", "calls", "last")

    def __init__(self) -> None:
        #: A call to be made when no others are left; None if there is none.
        self.last: Callable[[], object] | None = None
        #: The calls with their arguments. Other modules only test whether there are any.
        self.calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        #: Whether the calls are being made.
        self._sending = False

    def put(self, call: Callable[..., object], *arguments: Any) -> None:
        """Make this call at the next `send`, after those that were put before."""
        self.calls.append((call, arguments))

    def send(self) -> None:
        """Make all calls, including the ones that are put while this runs.

        Does nothing inside one of these calls: the outer `send` makes the rest.
        """
        if self._sending:
            return
        self._sending = True
        try:
            while self.calls or self.last is not None:
                if not self.calls and self.last is not None:
                    self.put(self.last)
                    self.last = None
                call, arguments = self.calls.popleft()
                try:
                    call(*arguments)
                except Exception:  # noqa: BLE001 - the other calls are to be made whatever it was
                    log_failure("the server failed while it told of an event")
        finally:
            self._sending = False


def log_failure(text: str, **fields: Any) -> None:
    """Log the exception that is being handled; never raises."""
    with contextlib.suppress(Exception):
        log.failure(text, **fields)
