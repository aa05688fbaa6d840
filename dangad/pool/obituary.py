"""What ended a worker, in words for the log and for the client of the job that it ran.

Written by :mod:`dangad.pool.link` when a process is gone.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from twisted.internet import error

from dangad.text import show_bytes

if TYPE_CHECKING:
    from twisted.python.failure import Failure

NEARLY = 0.9
"""How much of the memory that a worker may have makes that the likely cause of its death."""


def how_it_ended(status: Failure) -> str:
    """The process's end in words that follow "worker 4711"."""
    value = status.value
    if isinstance(value, error.ProcessTerminated) and value.signal is not None:
        try:
            return f"was killed by {signal.Signals(value.signal).name}"
        except ValueError:
            return f"was killed by signal {value.signal}"
    return f"exited (status {getattr(value, 'exitCode', None) or 0})"


def by_sigkill(status: Failure) -> bool:
    """Whether it was SIGKILL that ended the process."""
    return getattr(status.value, "signal", None) == signal.SIGKILL


def about_memory(peak: int, limit: int) -> str:
    """What is told of its memory, beginning with "; "; nothing if nothing is known.

    :param peak: the most bytes that it was seen to have, 0 if that is not known.
    :param limit: the bytes that it may have, 0 for any number.
    """
    words = f"; it had used up to {show_bytes(peak)} of memory" if peak else ""
    if limit and peak >= NEARLY * limit:
        words += f", and --max-memory is {show_bytes(limit)}"
    return words
