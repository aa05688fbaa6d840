"""Whether a report of a fork is true: jobs are children of the same user, and may lie.

Asked by :mod:`dangad.pool.template`. Whoever has got hold of the template's socket could name any
process as a new worker, and have it killed, by root perhaps. The kernel says who has sent a report
(SCM_CREDENTIALS in unix(7)), and which processes are children of this one.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_UCRED = struct.Struct("iII")
"""Process, user and group of a sender."""


class Witness:
    """Knows the children of this process."""

    def __init__(self, known: Callable[[], Collection[int]]) -> None:
        """Ask nothing yet.

        :param known: the children of which it is known what they are.
        """
        self._known = known

    def is_genuine(self, template: int, report: bytes, sender: int) -> bool:
        """Whether the template has sent this, or the fork of which it tells.

        :param template: the template's process id.
        :param sender: the process id of who has sent it.
        """
        return sender > 0 and (sender == template or report.split()[1:2] == [b"%d" % sender])

    def is_fork(self, pid: int) -> bool:
        """Whether this is a child that is not reaped, and of which nothing is known yet."""
        if pid <= 0 or pid in self._known():
            return False
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True


def name_senders(receiver: socket.socket) -> None:
    """Have the kernel say who has sent what is received here."""
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def receive(receiver: socket.socket, size: int) -> tuple[bytes, int]:
    """A message, and the id of the process that has sent it; 0 if that is not known.

    :raises OSError: there is no message.
    """
    message, ancillary, _, _ = receiver.recvmsg(size, socket.CMSG_SPACE(_UCRED.size))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return message, _UCRED.unpack(data[: _UCRED.size])[0]
    return message, 0
