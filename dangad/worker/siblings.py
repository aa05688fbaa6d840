"""Forks that are not children of this process but of its parent, see CLONE_PARENT in clone(2).

Used by :mod:`dangad.worker.template`. The parent gets SIGCHLD and the exit status of a fork, as of
any child that it has started itself. The kernel's signal at a parent's death comes when the parent
dies, not when this process does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_CLONE_PARENT = 0x8000
_CLONE_CHILD_CLEARTID = 0x200000
_CLONE_CHILD_SETTID = 0x1000000
_GET_TID_ADDRESS = 40
"""The number of PR_GET_TID_ADDRESS, see prctl(2)."""

_CALLS = {"x86_64": (56, 3), "aarch64": (220, 4)}
"""For each machine, the number of clone(2) and the place of its argument for the id's address."""


class SiblingForks:
    """Makes sibling forks. This process must have a single thread."""

    def __init__(self) -> None:
        """Prepare, so that forks are fast.

        :raises OSError: this system cannot fork siblings.
        """
        if sys.platform != "linux" or os.uname().machine not in _CALLS:
            raise OSError(f"no sibling can be forked on {sys.platform}, {os.uname().machine}")
        self._number, self._place = _CALLS[os.uname().machine]
        self._python = ctypes.pythonapi
        self._libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock
        address = ctypes.c_void_p()
        unknown = self._libc.prctl(_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0)
        #: The address at which the C library keeps the thread's id; the fork gets its own id there.
        self._thread_id = None if unknown else address

    def fork(self) -> int:
        """Fork as :func:`os.fork` does, but the fork's parent is this process's parent.

        :return: 0 in the fork; in this process the id of the fork.
        :raises OSError: there is no room for another process.
        """
        flags = _CLONE_PARENT | signal.SIGCHLD
        places = [ctypes.c_void_p()] * 5
        if self._thread_id is not None:
            flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
            places[self._place] = self._thread_id
        arguments = (ctypes.c_long(self._number), ctypes.c_long(flags), *places[1:])
        self._python.PyOS_BeforeFork()  # os.fork makes these three calls around fork(2), too
        pid = int(self._libc.syscall(*arguments))
        if pid == 0:
            self._python.PyOS_AfterFork_Child()
            return 0
        problem = ctypes.get_errno()
        self._python.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(problem, os.strerror(problem))
        return pid
