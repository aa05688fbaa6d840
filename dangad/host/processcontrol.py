"""How this process ends by a signal; what Linux does at its parent's death and for debuggers.

Except for the first, each is a call of prctl(2). On other systems these functions do nothing.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def die_by(number: int) -> NoReturn:
    """End this process by the signal, so that its parent sees this end.

    A shell leaves a loop, or the rest of a line, only if Ctrl-C has killed the command. An exit
    status of 130 means to it that the command has handled Ctrl-C.
    """
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    raise AssertionError("the default action of the signal is to end the process")


def signal_at_parents_death(number: int) -> None:
    """Let the kernel send this process the signal `number` when its parent dies."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> bool:
    """Become the parent of all orphans among this process's descendants; whether it worked."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def keep_out_debuggers(*, out: bool) -> None:
    """Forbid processes of the same user to trace this one or take its descriptors; or allow it."""
    _prctl(_PR_SET_DUMPABLE, int(not out))


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    done: int = ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    return done == 0
