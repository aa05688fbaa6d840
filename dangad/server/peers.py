"""The user at the other end of a connection, as the kernel knows it.

For a UNIX socket the kernel records the user when the client connects. For TCP within this machine,
the kernel tells the owner of the client's socket by netlink, see sock_diag(7).
:mod:`dangad.server.access` asks for each new connection. This reads nothing from the connection,
and does not block.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import grp
import os
import pwd
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.address import UNIXAddress

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from typing import Any

    from twisted.internet.interfaces import ITransport

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
SO_PEERGROUPS = 59
TCP_LISTEN = 10
ANY_STATE = 0xFFFFFFFF
NO_COOKIE = b"\xff" * 8
"""Constants of kernel headers that Python's socket module does not have."""

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_PORT = struct.Struct("!H")
_ANSWER = struct.Struct("=BBBB 2s2s16s16s I 8s IIIII")
"""A struct inet_diag_msg: family, state, timer, retrans; ports, addresses, interface, cookie of
the socket; expires, rqueue, wqueue, uid, inode."""
_UCRED = struct.Struct("=iII")
_MOST_GROUPS = 256
"""The most groups of a process that fit into the answer of Python's getsockopt."""


class Unknown(Exception):
    """The kernel does not know the user of a connection; the text says why."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a connection.

    :ivar user: the user's id.
    :ivar groups: the ids of the process's groups, if the kernel tells.
    """

    user: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who may connect besides the server's own user and root.

    :ivar users: ids of users.
    :ivar groups: ids of groups.
    :ivar members: ids of the users in these groups, read from the user database at the start. For
        TCP the kernel does not know groups, and asking the database later might take long.
    """

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    members: frozenset[int] = frozenset()

    def admits(self, owner: Owner) -> bool:
        """Whether a connection of this owner is admitted."""
        return (
            owner.user in (0, os.geteuid())
            or owner.user in self.users
            or owner.user in self.members
            or not self.groups.isdisjoint(owner.groups)
        )

    def __str__(self) -> str:
        parts = [f"user {os.geteuid()}"] if os.geteuid() else []
        parts += ["root", *(f"user {user}" for user in sorted(self.users))]
        parts += [f"group {group}" for group in sorted(self.groups)]
        return ", ".join(parts)


def allow(users: Iterable[str], groups: Iterable[str]) -> Allowed:
    """Allow users and groups, given by name or number.

    This blocks while the user database is asked.

    :raises ValueError: there is no user or group of this name.
    """
    group_ids: set[int] = set()
    members: set[int] = set()
    for group in groups:
        number, names = _group(group)
        group_ids.add(number)
        for name in names:
            with contextlib.suppress(ValueError):  # a member that was deleted
                members.add(_user(name))
    if group_ids:
        members |= {user.pw_uid for user in pwd.getpwall() if user.pw_gid in group_ids}
    return Allowed(frozenset(map(_user, users)), frozenset(group_ids), frozenset(members))


def _user(user: str) -> int:
    try:
        return int(user) if _is_number(user) else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {user}") from None


def _group(group: str) -> tuple[int, list[str]]:
    """The id of a group, and the names of its members in the group database."""
    number = int(group) if _is_number(group) else None
    try:
        entry = grp.getgrnam(group) if number is None else grp.getgrgid(number)
    except KeyError:
        if number is None:
            raise ValueError(f"there is no group {group}") from None
        return number, []
    return entry.gr_gid, entry.gr_mem


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 2**32 - 1


def owner_of(transport: ITransport) -> Owner:
    """The owner of a connection.

    :raises Unknown: the kernel does not tell, because the client has closed the connection, it
        comes from another machine, or it is neither a UNIX socket nor TCP.
    """
    peer = transport.getPeer()
    if isinstance(peer, UNIXAddress):
        return _checked(_unix_owner(transport))
    if isinstance(peer, (TCP4Address, TCP6Address)):
        here: Any = transport.getHost()
        return _checked(tcp_owner((peer.host, peer.port), (here.host, here.port)))
    raise Unknown(f"{peer} is neither a UNIX socket nor TCP")


def _unix_owner(transport: ITransport) -> Owner:
    connected: socket.socket | None = getattr(transport, "socket", None)
    if connected is None or not sys.platform.startswith("linux"):
        raise Unknown("this system does not tell whose a UNIX socket is")
    try:
        ucred = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError as error:
        raise Unknown(str(error.strerror)) from None
    _, user, group = _UCRED.unpack(ucred)
    others = b""
    with contextlib.suppress(OSError):  # there are too many, or the kernel is old
        others = connected.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _MOST_GROUPS)
    return Owner(user, frozenset([group, *struct.unpack(f"={len(others) // 4}I", others)]))


def name_of(transport: ITransport) -> str:
    """The other end of a connection, in a few words: its address, or its process."""
    peer = transport.getPeer()
    if isinstance(peer, TCP4Address | TCP6Address):
        host = f"[{peer.host}]" if isinstance(peer, TCP6Address) else peer.host
        return f"{host}:{peer.port}"
    process = _unix_process(transport)
    return "process {} of user {}".format(*process) if process else "a UNIX socket"


def identity_of(transport: ITransport, user: int | None) -> Hashable:
    """The peer at the other end of a connection: the same value for all connections of one peer.

    A peer is a user of this machine, or another host. It is not a process: a peer can have a new
    process for each connection.

    :param user: the user of a TCP connection, if it is known.
    """
    peer = transport.getPeer()
    if isinstance(peer, TCP4Address | TCP6Address):
        return peer.host if user is None else user
    process = _unix_process(transport)
    return None if process is None else process[1]


def _unix_process(transport: ITransport) -> tuple[int, int, int] | None:
    """The process at the other end of a UNIX socket, its user and its group; None if unknown."""
    connected = getattr(transport, "socket", None)
    if connected is None or not sys.platform.startswith("linux"):
        return None
    try:
        ucred = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    process, user, group = _UCRED.unpack(ucred)
    return process, user, group


def tcp_owner(peer: tuple[str, int], here: tuple[str, int]) -> Owner:
    """The owner of the socket at `peer` that is connected to `here`; both are address and port.

    :raises Unknown: the kernel does not tell.
    """
    remote, local = _plain(peer[0]), _plain(here[0])
    if remote.version != local.version:
        raise Unknown("the addresses are of different kinds")
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    identity = (
        _PORT.pack(peer[1])
        + _PORT.pack(here[1])
        + remote.packed.ljust(16, b"\0")
        + local.packed.ljust(16, b"\0")
        + struct.pack("=I", 0)  # any interface
        + NO_COOKIE
    )
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, ANY_STATE) + identity
    try:
        found = _ANSWER.unpack_from(_ask_kernel(request))
    except struct.error:
        raise Unknown("the kernel's answer is too short") from None
    kind, state, _, _, source_port, target_port, source, target = found[:8]
    user, inode = found[-2:]
    ends = (
        (_read_address(kind, source), source_port),
        (_read_address(kind, target), target_port),
    )
    wanted = ((remote, _PORT.pack(peer[1])), (local, _PORT.pack(here[1])))
    # If the client's socket is gone, the kernel may find another one that listens there. A socket
    # that its process has closed, with bytes still to send, counts as root's.
    if ends != wanted or state == TCP_LISTEN or inode == 0:
        raise Unknown("the client has closed it")
    return Owner(user)


def can_tell(host: str) -> None:
    """Check that the kernel tells the owner of connections to this loopback address.

    :raises Unknown: the kernel does not tell; the text says why.
    """
    short = _plain(host).version == 4
    family = socket.AF_INET if short else socket.AF_INET6
    try:
        with (
            socket.create_server(("127.0.0.1" if short else "::1", 0), family=family) as listening,
            socket.create_connection(listening.getsockname()[:2], timeout=1),
        ):
            listening.settimeout(1)
            accepted, _ = listening.accept()
            with accepted:
                owner = tcp_owner(accepted.getpeername()[:2], accepted.getsockname()[:2])
    except OSError as error:
        raise Unknown(str(error.strerror or error)) from None
    if owner.user != os.geteuid():
        raise Unknown("it names another user than the one who connects")


def _ask_kernel(request: bytes) -> bytes:
    """The kernel's answer to a question about one socket, without the header."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        raise Unknown("this system has no netlink")
    length = _HEADER.size + len(request)
    message = _HEADER.pack(length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + request
    try:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        with socket.socket(family, kind, NETLINK_SOCK_DIAG) as netlink:
            netlink.sendto(message, (0, 0))
            answer, sender = netlink.recvfrom(4096)  # at once: the kernel has no queue
    except OSError as error:
        raise Unknown(str(error.strerror)) from None
    if sender[0] != 0 or len(answer) < _HEADER.size + 4:
        raise Unknown("the answer is not the kernel's")
    _, what, _, _, _ = _HEADER.unpack_from(answer)
    body = answer[_HEADER.size :]
    if what == NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", body)
        if -code == errno.ENOENT:
            raise Unknown("there is no such socket on this machine")
        raise Unknown(os.strerror(-code))
    return body


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An IP address; IPv4 in the form of IPv6 becomes IPv4."""
    return _unmapped(ip_address(address.partition("%")[0]))


def _read_address(family: int, packed: bytes) -> IPv4Address | IPv6Address:
    """The IP address in 16 bytes from the kernel; IPv4 uses the first 4 of them."""
    return IPv4Address(packed[:4]) if family == socket.AF_INET else _unmapped(IPv6Address(packed))


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return getattr(address, "ipv4_mapped", None) or address


def _checked(owner: Owner) -> Owner:
    """The same owner, if the user is known here.

    :raises Unknown: the id stands for all users that this process's namespace does not know.
    """
    if owner.user == _user_for_unknown():
        raise Unknown("its user is unknown in this container")
    return owner


@functools.cache
def _user_for_unknown() -> int | None:
    """The id that stands for all users unknown in this process's user namespace.

    None if all users are known, as outside of containers.
    """
    try:
        with open("/proc/self/uid_map") as file:
            if sum(int(line.split()[2]) for line in file) >= 0xFFFFFFFF:
                return None
        with open("/proc/sys/kernel/overflowuid") as file:
            return int(file.read())
    except (OSError, ValueError, IndexError):
        return None
