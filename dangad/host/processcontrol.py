"""What Linux does with this process when its parent dies, with orphans, and for debuggers.

Each is a call of prctl(2). On other systems the functions do nothing.
"""

from __future__ import annotations

import ctypes
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


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
