"""What a worker writes on its standard streams, and what of it is whose.

Set up by :mod:`dangad.worker.child` at its start. The parent reads both outputs from one pipe, see
:mod:`dangad.pool.output`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import sys
import termios
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import ILogObserver, LogLevel, eventAsText, globalLogBeginner
from zope.interface import implementer

from dangad.wire.commands import STACK_SIGNAL
from dangad.worker.context import is_left_over
from dangad.worker.pipe import put_out_of_reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.logger import LogEvent

_unread = bytearray(4)
"""Where the kernel puts how many bytes wait in a pipe: `fcntl` takes thrice as long for others."""
_REACTOR = "twisted.internet.base"
"""Who says "Main loop terminated" each time that an asynchronous job ends."""


def own_stdio() -> None:
    """Read nothing from stdin, and write both outputs to one pipe, line by line.

    What is left of an earlier job prints to the other pipe, since it says nothing of the job that
    runs: so it is neither logged under that one's name, nor told to that one's client.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)
    else:
        os.set_inheritable(0, True)
    other = os.fdopen(put_out_of_reach(1), "w")
    os.dup2(2, 1)
    for stream in (other, sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    for stream in (sys.stdout, sys.stderr):
        stream.write = partial(_print, stream.write, other.write)  # type: ignore[method-assign]


def _print(write: Callable[[str], int], write_apart: Callable[[str], int], text: str) -> int:
    return write_apart(text) if is_left_over() else write(text)


def flush_stdio() -> None:
    """Write out what is kept of both outputs."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the job has closed or replaced one: flush what there is
        for name in ("stdout", "stderr"):
            with contextlib.suppress(BaseException):
                getattr(sys, name).flush()


def has_printed() -> bool:
    """Whether something lies in the pipe for output; if that cannot be told, it may."""
    try:
        fcntl.ioctl(2, termios.FIONREAD, _unread)
    except OSError:
        return True  # the job has closed or replaced it
    return any(_unread)


def show_stacks() -> int:
    """Print the stack of all threads on a crash, and when the parent asks by ``STACK_SIGNAL``.

    Onto a descriptor of their own, which is returned and which a job does not close by accident;
    the signal is handled in C, so that it needs no turn of the interpreter.
    """
    fd = put_out_of_reach(2)
    faulthandler.enable(fd)
    faulthandler.register(STACK_SIGNAL, fd)
    return fd


@implementer(ILogObserver)
class _StderrObserver:
    """Twisted's log events of level info and above, one line each, on stderr."""

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        chatter = event.get("log_namespace") == _REACTOR and level == LogLevel.info
        if level >= LogLevel.info and not chatter:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            sys.stderr.write(text + "\n")


def log_to_stderr() -> None:
    """Have what Twisted logs printed."""
    globalLogBeginner.beginLoggingTo([_StderrObserver()], redirectStandardIO=False)
