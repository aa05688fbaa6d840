"""Whose a connection is, by the word of the real kernel."""

import grp
import os
import pwd
import socket
import tempfile
import unittest
from collections.abc import Hashable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from dangad.server.peers import (
    Allowed,
    Owner,
    Unknown,
    allow,
    can_tell,
    identity_of,
    owner_of,
    tcp_owner,
)
from tests.otheruser import DAEMON, NOBODY, connect_as, family_of, needs_root

OTHERS_GROUP = 4711
"""A group in which a client is, for no user database knows it."""


class Connected:
    """A transport over a socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected

    def _address(self, name: Any) -> Any:
        if self.socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        kind = IPv4Address if self.socket.family == socket.AF_INET else IPv6Address
        return kind("TCP", *name[:2])

    def getPeer(self) -> Any:
        """Where the client is."""
        return self._address(self.socket.getpeername())

    def getHost(self) -> Any:
        """Where the server is."""
        return self._address(self.socket.getsockname())


class OwnerTests(unittest.TestCase):
    """A client connects, and the server's end of the connection is asked about."""

    def listen(self, address: Any, *, mapped: bool = False) -> tuple[socket.socket, Any]:
        """A listening socket, open to everybody, and its address."""
        listening = socket.socket(family_of(address))
        self.addCleanup(listening.close)
        if mapped:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            listening.bind(address)
        except OSError as error:
            self.skipTest(f"no {address} here: {error}")
        listening.listen()
        name = listening.getsockname()
        if isinstance(name, str):
            os.chmod(name, 0o666)
            return listening, name
        return listening, name[:2]

    def folder(self) -> str:
        """A directory that everybody may enter."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.chmod(folder.name, 0o755)
        return folder.name

    def owner(self, listening: socket.socket) -> Owner:
        """Whose the next connection is."""
        connected, _ = listening.accept()
        self.addCleanup(connected.close)
        return owner_of(Connected(connected))  # type: ignore[arg-type]

    def test_own(self) -> None:
        """One's own connections, by each kind of stream."""
        for address in (("127.0.0.1", 0), ("::1", 0), os.path.join(self.folder(), "s")):
            with self.subTest(address=address):
                listening, name = self.listen(address)
                with socket.socket(listening.family) as client:
                    client.connect(name)
                    self.assertEqual(self.owner(listening).user, os.geteuid())

    @needs_root
    def test_identity(self) -> None:
        """All connections of one user are one peer's; or all of a host, if it is not known."""
        for address, peers in (
            (f"{self.folder()}/s", [os.getuid()] * 2),
            (("127.0.0.1", 0), ["127.0.0.1", 4711]),
        ):
            listening, name = self.listen(address)
            found = [self.identity(listening, name, user) for user in (None, 4711)]
            self.assertEqual(found, peers)

    def identity(self, listening: socket.socket, address: Any, user: int | None) -> Hashable:
        """Whose a new connection is, of a user who is known, or is not."""
        with socket.socket(family_of(address)) as client:
            client.connect(address)
            connected, _ = listening.accept()
            with connected:
                return identity_of(Connected(connected), user)  # type: ignore[arg-type]

    def test_others(self) -> None:
        """Another user's, while the server's user and root have connections, too."""
        for address in (("127.0.0.1", 0), ("::1", 0), os.path.join(self.folder(), "s")):
            with self.subTest(address=address):
                listening, name = self.listen(address)
                for user in (NOBODY, 0, DAEMON):
                    with connect_as(user, name):
                        self.assertEqual(self.owner(listening).user, user)

    @needs_root
    def test_mapped(self) -> None:
        """IPv4 in the clothes of IPv6, on either side."""
        listening, (_, port) = self.listen(("::", 0), mapped=True)
        for host in ("127.0.0.1", "::ffff:127.0.0.1", "::1"):
            with self.subTest(host), connect_as(NOBODY, (host, port)):
                self.assertEqual(self.owner(listening).user, NOBODY)

    @needs_root
    def test_groups(self) -> None:
        """By a UNIX socket the kernel tells a client's groups, the first and the others."""
        listening, name = self.listen(os.path.join(self.folder(), "s"))
        with connect_as(NOBODY, name, groups=(OTHERS_GROUP,)):
            self.assertEqual(self.owner(listening).groups, {NOBODY, OTHERS_GROUP})

    @needs_root
    def test_closed(self) -> None:
        """A client that has sent and closed is not known, and not taken for root.

        Its socket belongs to no process any more, which the kernel tells as user 0.
        """
        listening, name = self.listen(("127.0.0.1", 0))
        with connect_as(NOBODY, name) as client:
            client.send(b"x" * 100)
        with self.assertRaisesRegex(Unknown, "closed"):
            self.owner(listening)

    @needs_root
    def test_half_closed(self) -> None:
        """One that has only said that it will send no more is known."""
        listening, name = self.listen(("127.0.0.1", 0))
        with connect_as(NOBODY, name) as client:
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(self.owner(listening).user, NOBODY)

    def test_another_socket(self) -> None:
        """A socket that listens where the client's was is not taken for it."""
        _, name = self.listen(("127.0.0.1", 0))
        _, other_name = self.listen(("127.0.0.1", 0))
        with self.assertRaises(Unknown):
            tcp_owner(other_name, name)

    def test_strangers(self) -> None:
        """What comes from another machine, or is nothing known, is not known."""
        for peer in (("192.0.2.1", 1), ("2001:db8::1", 1)):
            here = "127.0.0.1" if "." in peer[0] else "::1"
            with self.subTest(peer=peer), self.assertRaisesRegex(Unknown, "no such|closed"):
                tcp_owner(peer, (here, 7003))

    def test_can_tell(self) -> None:
        """On this system it can be told."""
        can_tell("127.0.0.1")
        can_tell("::ffff:127.0.0.1")


class AllowedTests(unittest.TestCase):
    """Who is let in."""

    def test_usual(self) -> None:
        """The server's own user and root, and nobody else."""
        nobody_else = Allowed()
        for user in (0, os.geteuid()):
            self.assertTrue(nobody_else.admits(Owner(user, frozenset({NOBODY}))))
        self.assertFalse(nobody_else.admits(Owner(NOBODY, frozenset({0, os.getegid()}))))

    def test_named(self) -> None:
        """Users by name and number; groups by their members, and by what the kernel tells."""
        name = pwd.getpwuid(DAEMON).pw_name
        group = grp.getgrgid(DAEMON).gr_name
        for allowed in (allow([name], []), allow([str(DAEMON)], []), allow([], [group])):
            self.assertTrue(allowed.admits(Owner(DAEMON)))
            self.assertFalse(allowed.admits(Owner(NOBODY)))
        self.assertTrue(allow([], [str(DAEMON)]).admits(Owner(NOBODY, frozenset({DAEMON}))))

    def test_unknown_names(self) -> None:
        """A name that nobody has is said, since a typing error would let in somebody else."""
        for users, groups, says in ((["noone-such"], [], "user"), ([], ["none-such"], "group")):
            with self.assertRaisesRegex(ValueError, f"there is no {says} no"):
                allow(users, groups)
