"""A worker's standard streams: the output of the running job is kept apart from earlier jobs'.

Set up by :mod:`dangad.worker.child` at its start. In the parent, :mod:`dangad.pool.workeroutput`
takes the output.
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
"""The buffer for FIONREAD: with immutable bytes `fcntl.ioctl` takes three times as long."""
_REACTOR = "twisted.internet.base"
"""The namespace of the log event "Main loop terminated", which each asynchronous job causes."""


def own_stdio() -> None:
    """Make stdin empty, and stdout and stderr one pipe, written line by line.

    Code that an earlier job has left behind prints to another pipe. So its output is neither
    logged under the running job's id, nor told to the running job's client.
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
    """Flush both outputs."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the job has closed or replaced one: flush the rest
        for name in ("stdout", "stderr"):
            with contextlib.suppress(BaseException):
                getattr(sys, name).flush()


def has_printed() -> bool:
    """Whether the pipe for output holds anything; True if this is not known."""
    try:
        fcntl.ioctl(2, termios.FIONREAD, _unread)
    except OSError:
        return True  # the job has closed or replaced it
    return any(_unread)


def show_stacks() -> int:
    """Print the stacks of all threads after a crash, and when ``STACK_SIGNAL`` comes.

    The signal is handled in C, so it works even if the interpreter is stuck.

    :return: the descriptor for stacks, which no job closes by accident.
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
    """Print Twisted's log events."""
    globalLogBeginner.beginLoggingTo([_StderrObserver()], redirectStandardIO=False)
