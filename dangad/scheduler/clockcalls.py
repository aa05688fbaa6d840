"""Delayed calls for rules that must go on even if the clock fails.

Used by :mod:`dangad.scheduler.supervisor` and its parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.outbox import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime


def call_later(
    clock: IReactorTime, delay: float, call: Callable[..., object], *arguments: object
) -> IDelayedCall | None:
    """Let the clock make a call after `delay` seconds; None if it cannot: no call is made then."""
    try:
        return clock.callLater(delay, call, *arguments)
    except Exception:  # noqa: BLE001 - the rules go on at the next event
        log_failure("the server failed to put off a call")
        return None


def cancel(call: IDelayedCall | None) -> None:
    """Cancel `call`, if it is still to come."""
    try:
        if call is not None and call.active():
            call.cancel()
    except Exception:  # noqa: BLE001 - the call comes, and finds nothing to do
        log_failure("the server failed to cancel a call")
