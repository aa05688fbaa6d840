"""Other users of the machine, as clients: a child process becomes one, and connects."""

import os
import socket
import unittest
from typing import Any

NOBODY = 65534
"""The user and the group `nobody`, who owns nothing."""
DAEMON = 1
"""The user and the group `daemon`, who is neither the server's nor nobody."""

needs_root = unittest.skipUnless(os.getuid() == 0, "only root can become another user")


def connect_as(user: int, address: Any, groups: tuple[int, ...] = ()) -> socket.socket:
    """A connection that `user` has made, handed over to this process.

    :param user: the number of the user, and of the group.
    :param address: the path of a UNIX socket, or host and port.
    :param groups: the numbers of other groups in which the user is.
    :raises OSError: the user cannot connect.
    """
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setgid(user)
            os.setuid(user)
            client = socket.socket(family_of(address))
            client.connect(address)
            socket.send_fds(there, [b"\0"], [client.fileno()])
        except OSError as error:
            there.send(bytes([error.errno or 0]))
        finally:
            os._exit(0)
    with here, there:
        os.waitpid(pid, 0)
        there.close()
        [number], descriptors, _, _ = socket.recv_fds(here, 1, 1)
    if number:
        raise OSError(number, os.strerror(number))
    return socket.socket(fileno=descriptors[0])


def family_of(address: Any) -> int:
    """The address family of what `connect_as` takes."""
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET
