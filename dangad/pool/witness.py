"""Whether a report of a fork is true: jobs are processes of the same user, and may lie.

Used by :mod:`dangad.pool.template`. A job that has got hold of the template's socket could name any
process as a new worker. The server, perhaps running as root, would then kill this process. The
kernel says who has sent a report (SCM_CREDENTIALS in unix(7)), and which processes are children of
this one.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_UCRED = struct.Struct("iII")
"""The form of a sender's credentials: process, user and group."""


class Witness:
    """Knows the children of this process."""

    def __init__(self, known: Callable[[], Collection[int]]) -> None:
        """Check nothing yet.

        :param known: returns the children of this process whose purpose is known.
        """
        self._known = known

    def is_genuine(self, template: int, report: bytes, sender: int) -> bool:
        """Whether the sender of `report` is the template, or the fork that the report names.

        :param template: the template's process id.
        :param sender: the sender's process id.
        """
        return sender > 0 and (sender == template or report.split()[1:2] == [b"%d" % sender])

    def is_fork(self, pid: int) -> bool:
        """Whether `pid` is a child that is not reaped, and whose purpose is not known yet."""
        if pid <= 0 or pid in self._known():
            return False
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True


def name_senders(receiver: socket.socket) -> None:
    """Let the kernel name the sender of each message that `receiver` receives."""
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def receive(receiver: socket.socket, size: int) -> tuple[bytes, int]:
    """A message, and the id of the process that has sent it; 0 if it is not known.

    :raises OSError: there is no message.
    """
    message, ancillary, _, _ = receiver.recvmsg(size, socket.CMSG_SPACE(_UCRED.size))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return message, _UCRED.unpack(data[: _UCRED.size])[0]
    return message, 0
