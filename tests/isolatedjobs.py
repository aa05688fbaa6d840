"""Job types with and without a worker of their own, which tell what their process has done."""

import os
import subprocess
import time
from typing import Any

from twisted.protocols import amp

import dangad

_done: list[str] = []
"""What this process has done, in order."""


class Plain(amp.Command):
    """Runs in any worker."""

    response = [(b"pid", amp.Integer()), (b"before", amp.ListOf(amp.Unicode()))]
    errors = {**dangad.ERRORS}


class Alone(Plain):
    """Has a worker of its own."""


class Few(Plain):
    """Has a worker of its own, and at most one at a time."""


class Wait(amp.Command):
    """Waits to be stopped, in one way or another."""

    arguments = [(b"how", amp.Unicode())]
    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


@dangad.job(Wait, stoppable=True)
def wait(how: str) -> dict[str, int]:
    """Wait for longer than anybody does."""
    try:
        if how == "leave a process":
            subprocess.Popen(["sleep", "600"])
        while how == "send":
            dangad.current_job().send(b"x" * 200_000)
        time.sleep(600)
    except dangad.JobStopped:
        if how == "raise":
            raise
        if how == "fail":
            raise ZeroDivisionError from None
        while how == "swallow":
            time.sleep(600)
    return {"pid": os.getpid()}


def _note(name: str) -> dict[str, Any]:
    before = list(_done)
    _done.append(name)
    return {"pid": os.getpid(), "before": before}


@dangad.job(Plain)
def plain() -> dict[str, Any]:
    """Note it."""
    return _note("plain")


@dangad.job(Alone, isolate=True)
def alone() -> dict[str, Any]:
    """Note it."""
    return _note("alone")


@dangad.job(Few, isolate=True, max_running=1)
def few() -> dict[str, Any]:
    """Note it."""
    return _note("few")
