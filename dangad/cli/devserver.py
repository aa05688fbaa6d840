"""The server that ``dangad dev`` runs: its command line, its process, and its sockets.

Used by :mod:`dangad.cli.devsession`. The process is kept by :mod:`dangad.host.keeper`, so that it
ends with this program, however that ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol

from dangad.addresses import description_of, looks_described
from dangad.cli.outcome import WrongUsage
from dangad.text import signal_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from dangad.cli.jobfiles import JobCode

LOOPBACK = "127.0.0.1"
"""Where the page is: only this user and root may connect there."""
MOST_LINE = 2**16
"""Bytes of the longest line of the server's that is kept whole."""
SIGNALLED = 128
"""The exit status to which the number of the signal is added that has killed the server."""
LONGEST_FOLDER = 80
"""Characters of the longest path of a folder for sockets; the kernel takes 107 for a socket."""


class SocketFolder:
    """A folder for the server's sockets that only this user can enter; it keeps its name."""

    def __init__(self) -> None:
        #: Where it is; empty before it was made.
        self.path = ""

    def make(self) -> str:
        """Make the folder, and return its path."""
        if not self.path:
            near = tempfile.gettempdir()
            where = near if len(near) <= LONGEST_FOLDER else "/tmp"
            self.path = tempfile.mkdtemp(prefix="dangad-dev-", dir=where)
        elif not os.path.isdir(self.path):
            os.mkdir(self.path, 0o700)
        return self.path

    def remove(self) -> None:
        """Remove the folder, if it is there."""
        if self.path:
            shutil.rmtree(self.path, ignore_errors=True)


def client_address(option: str, endpoint: str) -> str:
    """Where clients connect to a server that listens on `endpoint`: a value of ``--connect``.

    :param option: the option that names the endpoint.
    :raises WrongUsage: it is no endpoint that this program can derive the address of.
    """
    if not looks_described(endpoint):
        return os.path.abspath(endpoint)
    kind, _, rest = endpoint.partition(":")
    words = rest.split(":")
    if kind == "unix" and words[0] and "\\" not in rest:
        return os.path.abspath(words[0])
    if kind == "tcp" and words[0].isdigit() and words[0] != "0":
        hosts = [word[10:] for word in words[1:] if word.startswith("interface=")]
        if not (hosts and _is_loopback(hosts[0])):
            raise WrongUsage(
                f"{option} {endpoint}: other machines could connect; "
                f"write tcp:{words[0]}:interface={LOOPBACK}"
            )
        return f"tcp:{hosts[0]}:{words[0]}"
    raise WrongUsage(f"{option} {endpoint}: write a path, or tcp:PORT:interface={LOOPBACK}")


def _is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach this interface."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_program() -> list[str]:
    """The words by which another terminal in this directory starts this very program."""
    program = os.path.abspath(sys.argv[0])
    if os.path.basename(program) != "dangad":
        return [sys.executable, "-m", "dangad"]
    found = shutil.which("dangad")
    is_known = found is not None and os.path.realpath(found) == os.path.realpath(program)
    return ["dangad"] if is_known else [os.path.relpath(program)]


def hold_port() -> socket.socket:
    """A socket that keeps a free port for the page, on this machine alone, until it is closed.

    The kernel gives the port to no other program that asks for any free one. The server can listen
    there: as every server of Twisted's it has SO_REUSEADDR, and this socket does not listen.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((LOOPBACK, 0))
    return held


def server_words(code: JobCode, listen: str, control: str, page: int) -> list[str]:
    """The words of twistd's command line for a server of these job modules."""
    words = ["--nodaemon", "--pidfile=", "dangad", "--listen", listen, "--control", control]
    words += code.options
    words += ["--web", f"tcp:{page}:interface={LOOPBACK}", "--web-actions"]
    # Python takes a file that was saved twice in one second for the same, if it has compiled it.
    words += ["--worker-env", "PYTHONDONTWRITEBYTECODE=1"]
    return [*words, "--drain", "0", "--log-format", "json", "--log-jobs", "none"]


class ServerProcess(ProcessProtocol):
    """A running server, with the keeper as its parent.

    :ivar runs: whether the process is there.
    """

    transport: Any

    def __init__(self, said: Callable[[str], object], ended: Callable[[int], object]) -> None:
        """Remember whom to tell.

        :param said: called with each line of its output.
        :param ended: called with its exit status at its end.
        """
        self._said = said
        self._ended = ended
        #: The beginning of a line whose end has not come yet.
        self._rest = b""
        self.runs = False

    def start(self, reactor: Any, directory: str, words: list[str]) -> None:
        """Start the process.

        :param directory: the folder to remove at its end; empty for none.
        :param words: those of twistd's command line.
        """
        program = [sys.executable, "-P", "-m", "dangad.host.keeper", directory, *words]
        self.runs = True
        reactor.spawnProcess(
            self, sys.executable, program, env=os.environ, childFDs={0: "w", 1: "r", 2: "r"}
        )

    def end(self) -> None:
        """Have the server end."""
        self.transport.closeStdin()

    def hurry(self) -> None:
        """Have the server end at once."""
        try:
            self.transport.signalProcess(signal.SIGTERM)
        except ProcessExitedAlready:
            return

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - Twisted's name
        """Take output of the server, or of the keeper."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MOST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._said(line.decode("utf-8", "backslashreplace"))

    def processEnded(self, reason: Failure) -> None:
        """Tell of the end."""
        self.runs = False
        if self._rest:
            self._said(self._rest.decode("utf-8", "backslashreplace"))
        ended: Any = reason.value  # either has a code, or was killed
        self._ended(SIGNALLED + ended.signal if ended.exitCode is None else ended.exitCode)


def endpoint_in(folder: str, name: str) -> str:
    """The description of a UNIX socket in a folder, for the server."""
    return description_of(os.path.join(folder, name))


def how_ended(status: int) -> str:
    """How a process has ended, by its status as a shell has it."""
    if status > SIGNALLED:
        return f"was killed by {signal_name(status - SIGNALLED)}"
    return f"has ended with status {status}"
