"""Forks that are not this process's children but its parent's, see CLONE_PARENT in clone(2).

Used by :mod:`dangad.worker.template`. The parent gets SIGCHLD and the exit status, as of any child
that it has started itself, and the kernel's signal at the parent's death follows the parent. The
death of this process concerns none of them.
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
"""See PR_GET_TID_ADDRESS in prctl(2)."""

_CALLS = {"x86_64": (56, 3), "aarch64": (220, 4)}
"""For each machine the number of clone(2), and at which place it takes the address for the id."""


class SiblingForks:
    """Makes them. This process must have one thread."""

    def __init__(self) -> None:
        """Prepare, so that no fork takes longer than it must.

        :raises OSError: this system has nothing of the kind.
        """
        if sys.platform != "linux" or os.uname().machine not in _CALLS:
            raise OSError(f"no sibling can be forked on {sys.platform}, {os.uname().machine}")
        self._number, self._place = _CALLS[os.uname().machine]
        self._python = ctypes.pythonapi
        self._libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock
        address = ctypes.c_void_p()
        unknown = self._libc.prctl(_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0)
        #: Where the C library keeps the id of the thread, which is the fork's own afterwards.
        self._thread_id = None if unknown else address

    def fork(self) -> int:
        """As :func:`os.fork` does, but the fork's parent is this process's parent.

        :return: 0 in the fork; else its process id.
        :raises OSError: there is no room for another process.
        """
        flags = _CLONE_PARENT | signal.SIGCHLD
        places = [ctypes.c_void_p()] * 5
        if self._thread_id is not None:
            flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
            places[self._place] = self._thread_id
        arguments = (ctypes.c_long(self._number), ctypes.c_long(flags), *places[1:])
        self._python.PyOS_BeforeFork()  # these three are what os.fork does around fork(2)
        pid = int(self._libc.syscall(*arguments))
        if pid == 0:
            self._python.PyOS_AfterFork_Child()
            return 0
        problem = ctypes.get_errno()
        self._python.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(problem, os.strerror(problem))
        return pid
