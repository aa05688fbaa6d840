"""The event loops that jobs share in a worker: Twisted's reactor, and asyncio's current loop.

Used by :mod:`dangad.worker.processstate`, after each job. A process has one of each, and a job may
use either as it would in a program of its own. This module imports neither: a loop that no job has
imported costs nothing.
"""

from __future__ import annotations

import sys
from typing import Any

_REACTOR = "twisted.internet.reactor"
_LOOPS = "asyncio.events"
_NO_LOOP = (None, None)


def reactor_state() -> str:
    """What keeps the reactor from running for the next asynchronous job; "" if nothing does.

    A reactor that was stopped never runs again, and a reactor that runs in a thread cannot run in
    another one. Between jobs neither is the case, because the worker only interrupts its reactor.
    Twisted's public names do not tell a stopped reactor from one that has never run.
    """
    reactor: Any = sys.modules.get(_REACTOR)
    if reactor is None:
        return ""
    if getattr(reactor, "_started", False):
        return "the reactor runs in a thread"
    if getattr(reactor, "_startedBefore", False):
        return "the reactor was stopped, and cannot run again"
    return ""


def current_loop() -> tuple[Any, Any]:
    """The policy of asyncio and the loop that it holds for this thread, or None.

    asyncio's public functions are not used, because they would make a missing loop.
    """
    policy = getattr(sys.modules.get(_LOOPS), "_event_loop_policy", None)
    if policy is None:
        return _NO_LOOP
    return policy, getattr(getattr(policy, "_local", None), "_loop", None)


def put_loop_back(noted: tuple[Any, Any]) -> None:
    """Make the noted loop the current one again, or the reactor's if the reactor runs on asyncio.

    If no loop was noted, :func:`asyncio.get_event_loop` behaves as in a new process.
    """
    events: Any = sys.modules[_LOOPS]
    policy, loop = noted
    events.set_event_loop_policy(policy)
    loop = getattr(sys.modules.get(_REACTOR), "_asyncioEventloop", loop)
    if loop is not None:
        events.set_event_loop(loop)
