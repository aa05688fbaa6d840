"""What an endpoint's description means to dangad, and what is listened on then."""

import os
import socket
import stat
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from dangad.server.endpoints import Auth, Endpoint, read_endpoint
from dangad.server.listening import Access, CannotListen, Door, open_door
from dangad.server.peers import Allowed
from dangad.server.unixport import AdoptedUnixEndpoint
from tests.otheruser import DAEMON, NOBODY, connect_as, needs_root

LOOPBACK = "tcp:0:interface=127.0.0.1"


class ReadTests(SynchronousTestCase):
    """Descriptions are read."""

    def test_paths(self) -> None:
        """What does not begin with a word and a colon is the path of a UNIX socket, as it is."""
        for text in ("/run/x.sock", "x.sock", "./a:b/x.sock", "odd name", "/run/a=b"):
            with self.subTest(text):
                endpoint = read_endpoint(text)
                self.assertEqual((endpoint.kind, endpoint.path), ("unix", text))

    def test_unix(self) -> None:
        """The parts of a UNIX socket's description, by place or by name, escaped or not."""
        for text, path, mode, backlog in (
            ("unix:x", "x", None, 50),
            ("unix:/x:mode=660", "/x", 0o660, 50),
            ("unix:/x:0600:7", "/x", 0o600, 7),
            ("unix:a\\:b\\=c:backlog=9:lockfile=0", "a:b=c", None, 9),
            ("unix:address=/x", "/x", None, 50),
        ):
            with self.subTest(text):
                endpoint = read_endpoint(text)
                self.assertEqual(
                    (endpoint.path, endpoint.mode, endpoint.backlog), (path, mode, backlog)
                )

    def test_words(self) -> None:
        """Words that Twisted does not know are taken out, wherever they stand."""
        for text, left, auth, strict in (
            ("tcp:7003", "tcp:7003", None, False),
            (
                "tcp:7003:auth=none:interface=\\:\\:1",
                "tcp:7003:interface=\\:\\:1",
                Auth.NONE,
                False,
            ),
            ("tcp:7003:priorities=strict", "tcp:7003", None, True),
            ("unix:x:auth=user:priorities=fair:mode=666", "unix:x:mode=666", Auth.USER, False),
            ("haproxy:tcp:80:auth=none", "haproxy:tcp:80", Auth.NONE, False),
        ):
            with self.subTest(text):
                endpoint = read_endpoint(text)
                self.assertEqual(endpoint.description, left)
                self.assertEqual((endpoint.auth, endpoint.strict_priorities), (auth, strict))

    def test_usual(self) -> None:
        """A mode that is named says who may connect, unless auth= does; else users are asked."""
        for text, auth in (
            ("unix:x", Auth.USER),
            ("x", Auth.USER),
            ("unix:x:mode=600", Auth.NONE),
            ("unix:x:mode=666:auth=user", Auth.USER),
            ("tcp:1", Auth.USER),
            ("systemd:domain=UNIX:name=x", Auth.USER),
            ("haproxy:tcp:1", Auth.USER),
            ("haproxy:unix:x:mode=660", Auth.NONE),
            ("stdio:", Auth.NONE),
        ):
            with self.subTest(text):
                self.assertEqual(read_endpoint(text).usual_auth, auth)

    def test_nonsense(self) -> None:
        """What cannot be meant is refused, and what to write instead is said."""
        for text, says in (
            ("", "empty"),
            ("7003", "write tcp:7003:interface=127.0.0.1"),
            ("/run/x:mode=660", "write unix:/run/x:mode=660"),
            ("unix:", "no path"),
            ("unix:x:mode=888", "not like mode=660"),
            ("unix:x:mode=-1", "not like mode=660"),
            ("unix:x:mode=660:mode=666", "mode= is there twice"),
            ("unix:x:660:mode=666", "mode= is there twice"),
            ("unix:x:mod=660", "'mod=660' is not understood; .* mode=, backlog=, lockfile=, auth="),
            ("unix:x:660:9:1:red", "'red' is not understood"),
            ("unix:x:backlog=0", "not a whole number from 1"),
            ("tcp:1:auth=some", "auth=some is none of user, none"),
            ("tcp:1:auth=none:auth=user", "auth= is there twice"),
            ("tcp:1:priorities=high", "none of strict, fair"),
            ("haproxy:", "another endpoint"),
            ("haproxy:haproxy:tcp:1", "another endpoint"),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, says):
                read_endpoint(text)

    def test_words_of_nobody(self) -> None:
        """A word that Twisted does not know either is named."""
        with self.assertRaisesRegex(
            ValueError, "aut= is none of .* for tcp:, .* auth=, priorities="
        ):
            read_endpoint("tcp:7003:aut=none").make(reactor)


class Site(Factory):
    """Makes protocols that do nothing."""

    protocol = Protocol


class OpenTests(SynchronousTestCase):
    """Endpoints are listened on, in a directory that everybody may enter."""

    def setUp(self) -> None:
        """Make the directory."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.chmod(folder.name, 0o755)
        self.folder = folder.name

    def path(self, name: str) -> str:
        """That of a socket in the directory."""
        return os.path.join(self.folder, name)

    def open(self, text: str, **access: Any) -> Door:
        """Listen until the end of the test."""
        door = open_door(reactor, read_endpoint(text), Site(), Access(**access))
        self.addCleanup(door.close_at_once)
        return door

    def test_never_open(self) -> None:
        """What names an address of the network, or none at all, is refused before it is bound."""

        def bind(*_: object) -> None:
            raise AssertionError("it was bound")

        self.patch(socket.socket, "bind", bind)
        for text in (
            "tcp:0",
            "TCP:0",
            "tcp:0:0.0.0.0",
            "tcp:0:interface=0",
            "tcp:0:interface=192.0.2.1:auth=user",
            "tcp6:0",
            "tcp6:0:50:\\:\\:",
            "tcp6:0:interface=\\:\\:ffff\\:192.0.2.1",
            "ssl:0:privateKey=key.pem",
            "haproxy:tcp:0",
        ):
            with self.subTest(text), self.assertRaisesRegex(CannotListen, "--insecure"):
                self.open(text)
        with self.assertRaisesRegex(CannotListen, "could stop the server: listen on"):
            open_door(reactor, read_endpoint("tcp:0"), Site(), Access(), "--control")

    def test_advice(self) -> None:
        """What cannot be listened on is told with what to change, by the option that said it."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for option in ("--listen", "--control"):
                for text, says in (
                    (self.path("no/s"), rf"make the directory {self.folder}/no, or choose .* by"),
                    (self.path("s" * 200), "choose a shorter path by"),
                    (f"tcp:{port}:interface=127.0.0.1", "another port, as in .*tcp:7004"),
                    ("tcp:0:interface=192.0.2.1", "choose an address of this machine by"),
                ):
                    with (
                        self.subTest(f"{option} {text}"),
                        self.assertRaisesRegex(CannotListen, says) as caught,
                    ):
                        open_door(
                            reactor, read_endpoint(text), Site(), Access(insecure=True), option
                        )
                    self.assertIn(option, str(caught.exception))

    def test_beyond_the_machine(self) -> None:
        """Of what does not tell its address, that counts which was bound."""
        self.patch(Endpoint, "reaches_beyond", False)
        for text in ("tcp:0", "tcp:0:0.0.0.0", "tcp:0:auth=user", "tcp6:0", "haproxy:tcp:0"):
            with self.subTest(text), self.assertRaisesRegex(CannotListen, "--insecure"):
                self.open(text)
        for text in (LOOPBACK, "tcp:0:interface=127.1.2.3", "tcp:0:interface=localhost"):
            with self.subTest(text):
                self.assertEqual(self.open(text).who, str(Access().allowed))

    def test_users_and_mode(self) -> None:
        """Of the users who are let in, those count whom the mode of a UNIX socket admits, too."""
        allowed = Allowed(frozenset({NOBODY}))
        own, all_of_them = str(Allowed()), str(allowed)
        for number, (words, who, warned) in enumerate(
            (
                ("", own, True),
                (":mode=600:auth=user", own, True),
                (
                    ":mode=660:auth=user",
                    f"{all_of_them}, as far as its mode 660 admits them",
                    False,
                ),
                (":mode=666:auth=user", all_of_them, False),
                (":mode=600", "whomever its mode admits", False),
            )
        ):
            with self.subTest(words):
                door = self.open(f"unix:{self.path(f's{number}')}{words}", allowed=allowed)
                self.assertEqual(door.who, who)
                self.assertEqual(
                    ["mode=666:auth=user" in text for text in door.warnings], [True] * warned
                )
        self.assertEqual(self.open(LOOPBACK, allowed=allowed).warnings, [])
        self.assertEqual(self.open(f"unix:{self.path('s')}").warnings, [])

    def test_kernel_that_cannot_tell(self) -> None:
        """Where users cannot be told apart, as outside of Linux, TCP takes auth=none."""
        self.patch(socket, "AF_NETLINK", None)
        with self.assertRaisesRegex(CannotListen, r"this system has no netlink.*auth=none"):
            self.open(LOOPBACK)
        self.assertEqual(self.open(f"{LOOPBACK}:auth=none").who, "anybody on this machine")

    def test_mode(self) -> None:
        """Not for a moment is a socket open wider than its mode, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        modes: list[int] = []
        chmod = os.chmod

        def look(path: str, mode: int) -> None:
            modes.append(stat.S_IMODE(os.stat(path).st_mode))
            chmod(path, mode)

        self.patch(os, "chmod", look)
        for text, mode in (("x", 0o600), (f"unix:{self.path('y')}:mode=660", 0o660)):
            door = self.open(self.path(text) if text == "x" else text)
            name = str(door.endpoint.path)
            self.assertEqual(stat.S_IMODE(os.stat(name).st_mode), mode)
        self.assertEqual(modes, [0o600])
        self.assertEqual(os.umask(0), 0)

    @needs_root
    def test_owner(self) -> None:
        """The socket of a server that will run as another user is that user's."""
        self.open(self.path("s"), owner=(NOBODY, NOBODY))
        for user in (NOBODY, 0):
            connect_as(user, self.path("s")).close()
        with self.assertRaises(PermissionError):
            connect_as(DAEMON, self.path("s"))

    def test_lock_of_twisted(self) -> None:
        """The lock of an older version that was killed keeps nobody out, whoever has its number.

        In a container, that is the new server.
        """
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path("s"))
        os.symlink(str(os.getpid()), self.path("s.lock"))
        self.open(self.path("s"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["s", "s.lock"])

    def test_note(self) -> None:
        """A note names the process that listens, while it does, unless none is wanted."""
        door = self.open(self.path("s"))
        self.assertEqual(os.readlink(self.path("s.lock")), str(os.getpid()))
        door.close_at_once()
        self.assertEqual(os.listdir(self.folder), [])
        self.open(f"unix:{self.path('s')}:lockfile=0")
        self.assertEqual(os.listdir(self.folder), ["s"])

    def test_in_use(self) -> None:
        """Where another process listens, that is said, with its number; it goes on listening."""
        with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as client:
            living.bind(self.path("s"))
            living.listen()
            with self.assertRaisesRegex(CannotListen, rf"s: process {os.getpid()} \(.+\) listens"):
                self.open(self.path("s"))
            client.connect(self.path("s"))

    def test_no_socket(self) -> None:
        """A file that is no socket stays."""
        with open(self.path("s"), "w") as file:
            file.write("precious")
        with self.assertRaisesRegex(CannotListen, "something else of that name"):
            self.open(self.path("s"))
        self.assertTrue(os.path.isfile(self.path("s")))

    def test_replaced(self) -> None:
        """When it is closed, it does not remove a socket that has taken its name."""
        door = self.open(self.path("s"))
        os.rename(self.path("s"), self.path("old"))
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path("s"))
            door.close_at_once()
            self.addCleanup(os.remove, self.path("s"))
            self.assertIn("s", os.listdir(self.folder))

    def test_adopted(self) -> None:
        """A socket that somebody else made keeps its mode, its name, and others who listen."""
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(self.path("s"))
            os.chmod(self.path("s"), 0o640)
            made.listen()
            adopted = AdoptedUnixEndpoint(reactor, os.dup(made.fileno()))
            port: Any = self.successResultOf(adopted.listen(Factory()))
            self.assertEqual(port.getHost().name, self.path("s").encode())
            port.connectionLost(None)
            self.assertEqual(stat.S_IMODE(os.stat(self.path("s")).st_mode), 0o640)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.path("s"))

    def test_priorities(self) -> None:
        """The clients of an endpoint with strict priorities outrank others, and no others do."""
        for word, outranks in (("strict", True), ("fair", False)):
            door = self.open(f"{LOOPBACK}:auth=none:priorities={word}")
            protocol: Any = door.reception.buildProtocol(None)
            self.assertEqual(getattr(protocol, "outranks", False), outranks)

    def test_proxied(self) -> None:
        """Behind haproxy: a UNIX socket is as closed as elsewhere."""
        door = self.open(f"haproxy:unix:{self.path('s')}")
        self.assertEqual(stat.S_IMODE(os.stat(self.path("s")).st_mode), 0o600)
        self.assertEqual(door.who, str(Access().allowed))
