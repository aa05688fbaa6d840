"""Where the server listens: endpoint descriptions, what dangad itself reads of them, and ports.

Called by :mod:`dangad.tap`, which reads the descriptions, and :mod:`dangad.service`, which opens
them. An endpoint is described as Twisted does it, ``unix:/run/x.sock`` or ``tcp:7003``, or is the
path of a UNIX socket. dangad takes its own words out of it before Twisted sees it.

Nothing is open wider than was asked for. A UNIX socket is for its owner unless a mode is named. By
TCP within the machine only the server's own user may connect, unless others are named; beyond the
machine nobody may, unless the operator insists. An address that stands in the description is judged
before it is bound; any other, as that of a name, by what the kernel says was bound.
"""

from __future__ import annotations

import contextlib
import enum
import re
import socket
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address as Number4
from ipaddress import IPv6Address as Number6
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure

from dangad.server.access import Reception
from dangad.server.bindfailure import explain
from dangad.server.passeddescriptors import guard
from dangad.server.peers import Allowed, Unknown, can_tell
from dangad.server.unixport import BACKLOG, MODE, AdoptedUnixEndpoint, UnixEndpoint

if TYPE_CHECKING:
    from socket import AddressFamily

    from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
    from twisted.internet.protocol import Factory

log = Logger()


class CannotListen(Exception):
    """An endpoint cannot be listened on; the text says which and why, in one line."""


class Auth(enum.Enum):
    """Who may connect, as ``auth=`` in a description says it."""

    USER = "user"
    """The server's own user, root, and whoever is named beside them."""
    NONE = "none"
    """Whoever can."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a description says.

    :ivar text: it, as it was written.
    :ivar kind: the first word of it, in small letters.
    :ivar description: what is left of it for Twisted.
    :ivar auth: who may connect, if it says so.
    :ivar strict_priorities: whether the priorities that its clients ask for hold among all
        clients, and not only among the jobs of one.
    :ivar inner: what is behind the first word, if that is ``haproxy``.
    :ivar path: that of the UNIX socket, if it is one.
    :ivar mode: the mode that is named for it.
    :ivar backlog: how many connections the kernel keeps waiting for it.
    :ivar noted: whether a file beside it names the process that listens.
    """

    text: str
    kind: str
    description: str
    auth: Auth | None = None
    strict_priorities: bool = False
    inner: Endpoint | None = None
    path: str | None = None
    mode: int | None = None
    backlog: int = BACKLOG
    noted: bool = True

    def make(self, reactor: Any, owner: tuple[int, int] = (-1, -1)) -> IStreamServerEndpoint:
        """What can be listened on.

        :param owner: the numbers of the user and the group to whom a UNIX socket shall belong; -1
            for those of this process.
        :raises Exception: Twisted cannot read it; of what kind depends on the endpoint's.
        """
        if self.inner is not None:
            return proxyEndpoint(self.inner.make(reactor, owner))
        if self.path is not None:
            mode = MODE if self.mode is None else self.mode
            return UnixEndpoint(reactor, self.path, mode, self.backlog, self.noted, owner)
        made: IStreamServerEndpoint = serverFromString(reactor, self.description)
        if isinstance(made, AdoptedStreamServerEndpoint):
            family: AddressFamily = made.addressFamily
            if family.name == "AF_UNIX":
                return AdoptedUnixEndpoint(reactor, made.fileno)
        return made

    @property
    def usual_auth(self) -> Auth:
        """Who may connect to it within the machine: what it says, or else what is usual.

        A mode that is named says all. A proxy's clients are not told apart by their users.
        """
        if self.auth is not None:
            return self.auth
        innermost = self.inner or self
        return Auth.NONE if innermost.mode is not None or self.kind == "stdio" else Auth.USER

    @property
    def reaches_beyond(self) -> bool:
        """Whether it says that it can be reached from other machines.

        False where that only shows when it is listened on.
        """
        if self.inner is not None:
            return self.inner.reaches_beyond
        if self.kind not in _INTERFACE_PLACES:
            return False
        words, places = [], []
        for part in _split(self.description):
            word = _WORD.fullmatch(part)
            if word is None:
                places.append(part)
            elif _unescape(word[1]) == "interface":
                words.append(word[2])
        interface = [*words, *places[_INTERFACE_PLACES[self.kind] :], ""][0]
        address = _number(_unescape(interface) or "0.0.0.0")
        return address is not None and not address.is_loopback


_INTERFACE_PLACES = {"tcp": 2, "tcp6": 3, "ssl": 5}
"""In which of Twisted's descriptions, and in which place, an interface may stand without its name.

There, all interfaces are meant where none is named."""

# From text to an Endpoint.

_WORD = re.compile(r"((?:\\.|[^\\=])*)=(.*)", re.DOTALL)
_OWN_WORDS = {"auth": ("user", "none"), "priorities": ("strict", "fair")}
_LOOKS_DESCRIBED = re.compile("[A-Za-z0-9]+:")
_PATH_WITH_WORDS = re.compile(r":(auth|priorities|mode|backlog|lockfile)=")


def read_endpoint(text: str) -> Endpoint:
    """What a description says, or the path of a UNIX socket.

    :raises ValueError: it makes no sense; why. Whether Twisted can read its part, is not known.
    """
    if text.isdecimal():
        raise ValueError(f"for a TCP port, write tcp:{text}:interface=127.0.0.1")
    if not _LOOKS_DESCRIBED.match(text):
        if _PATH_WITH_WORDS.search(text):
            raise ValueError(f"write unix:{text}")
        if not text:
            raise ValueError("it is empty")
        return Endpoint(text, "unix", f"unix:{quoteStringArgument(text)}", path=text)
    words: dict[str, str] = {}
    rest: list[str] = []
    for part in _split(text):
        word = _WORD.fullmatch(part)
        key = _unescape(word[1]) if word else ""
        if word is None or key not in _OWN_WORDS:
            rest.append(part)
            continue
        if key in words:
            raise ValueError(f"{key}= is there twice")
        words[key] = _unescape(word[2])
        if words[key] not in _OWN_WORDS[key]:
            raise ValueError(f"{key}={words[key]} is none of {', '.join(_OWN_WORDS[key])}")
    return replace(
        _read_rest(text, rest),
        auth=Auth(words["auth"]) if "auth" in words else None,
        strict_priorities=words.get("priorities") == "strict",
    )


def _read_rest(text: str, parts: list[str]) -> Endpoint:
    """The endpoint that these parts of its description are, which has none of dangad's words."""
    kind = parts[0].lower()
    description = ":".join(parts)
    if kind == "haproxy":
        if not parts[1:] or parts[1].lower() in ("", "haproxy", "stdio"):
            raise ValueError("haproxy: is followed by another endpoint, as in haproxy:tcp:7003")
        inner = _read_rest(text, parts[1:])
        return Endpoint(text, kind, description, inner=inner)
    if kind == "unix":
        return Endpoint(text, kind, description, **_read_unix(parts[1:]))
    return Endpoint(text, kind, description)


def _read_unix(parts: list[str]) -> dict[str, Any]:
    """What a description says of a UNIX socket, by the names of the fields.

    :raises ValueError: it makes no sense.
    """
    names = ["path", "mode", "backlog", "lockfile"]
    said: dict[str, str] = {}
    for number, part in enumerate(parts):
        word = _WORD.fullmatch(part)
        key = _unescape(word[1]) if word else names[number] if number < len(names) else part
        if key == "address":  # as Twisted calls it
            key = "path"
        if key not in names or key in said:
            raise ValueError(f"{part!r} is not understood")
        said[key] = _unescape(word[2] if word else part)
    if not said.get("path"):
        raise ValueError("it names no path")
    fields: dict[str, Any] = {"path": said["path"]}
    mode, backlog = said.get("mode"), said.get("backlog")
    if mode is not None:
        if not re.fullmatch("0?[0-7]{3}", mode):
            raise ValueError(f"mode={mode} is not like mode=660")
        fields["mode"] = int(mode, 8)
    if backlog is not None:
        if not re.fullmatch("[1-9][0-9]{0,8}", backlog):
            raise ValueError(f"backlog={backlog} is no number from 1")
        fields["backlog"] = int(backlog)
    if said.get("lockfile", "1") not in ("0", "1"):
        raise ValueError(f"lockfile={said['lockfile']} is neither 0 nor 1")
    fields["noted"] = said.get("lockfile") != "0"
    return fields


def _split(text: str) -> list[str]:
    """The parts of a description between its colons, as they were written."""
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == ":":
            parts.append("")
        else:
            escaped = next(characters, "") if character == "\\" else ""
            parts[-1] += character + escaped
    return parts


def _unescape(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL)


# From an Endpoint to a port.


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect, as far as it is the same for all endpoints.

    :ivar allowed: beside the server's own user and root, where users are told apart.
    :ivar insecure: whether anybody may from beyond the machine.
    :ivar owner: the numbers of the user and the group to whom UNIX sockets belong, and who so may;
        -1 for those of this process.
    """

    allowed: Allowed = field(default_factory=Allowed)
    insecure: bool = False
    owner: tuple[int, int] = (-1, -1)


@dataclass(frozen=True, slots=True)
class Door:
    """An endpoint that is listened on.

    :ivar endpoint: what was said of it.
    :ivar port: what listens.
    :ivar reception: who says which connections are let in.
    """

    endpoint: Endpoint
    port: IListeningPort
    reception: Reception

    @property
    def is_open(self) -> bool:
        """Whether neither a mode nor a list of users says who may connect."""
        return self.reception.allowed is None and not isinstance(self.port.getHost(), UNIXAddress)

    @property
    def who(self) -> str:
        """Who may connect, for people."""
        host = self.port.getHost()
        if self.reception.allowed is not None:
            return str(self.reception.allowed)
        if isinstance(host, UNIXAddress):
            return "whomever its mode admits"
        if self.endpoint.kind == "stdio":
            return "the standard input"
        return "anybody on this machine" if _is_loopback(host) else "anybody who can reach it"

    def __str__(self) -> str:
        """Where it is, for people."""
        host = self.port.getHost()
        if (
            isinstance(host, (IPv4Address, IPv6Address))
            and str(host.port) not in self.endpoint.text
        ):
            return f"{self.endpoint.text} (port {host.port})"
        return self.endpoint.text

    def close_at_once(self) -> None:
        """Listen no more, without a reactor that runs, and leave nothing behind."""
        if isinstance(self.port, Port):
            if self.port.connected:
                self.port.connectionLost(Failure(error.ConnectionDone()))
        else:
            stop_listening(self.port).addErrback(lambda _: None)


def stop_listening(port: IListeningPort) -> Deferred[Any]:
    """Listen no more.

    Fires when the port is closed. That of ``stdio:`` is its only connection, and left to it.
    """
    return maybeDeferred(getattr(port, "stopListening", lambda: None))


def open_door(
    reactor: Any, endpoint: Endpoint, site: Factory, access: Access, option: str = "--listen"
) -> Door:
    """Listen on an endpoint; nothing is accepted before the reactor's next turn.

    :param reactor: what has the sockets read.
    :param endpoint: where.
    :param site: the factory of the connections' protocols.
    :param access: who may connect.
    :param option: the one by which it was described.
    :raises CannotListen: it cannot be listened on, or would be open to more than is allowed.
    """
    if endpoint.reaches_beyond and not access.insecure:
        raise _too_open(endpoint)
    reception = Reception(site, reactor, endpoint.text, endpoint.strict_priorities)
    if endpoint.kind == "stdio":  # whose connection is made here and now
        reception.allowed = None
    try:
        listening = endpoint.make(reactor, access.owner).listen(reception)
    except Exception as problem:
        raise CannotListen(f"{endpoint.text}: {problem}") from problem
    outcome: list[Any] = []
    listening.addBoth(outcome.append)
    if not outcome:  # not one of Twisted's
        listening.cancel()
        raise CannotListen(f"{endpoint.text}: it does not say at once whether it listens")
    if isinstance(outcome[0], Failure):
        innermost = endpoint.inner or endpoint
        reason = explain(outcome[0].value, innermost.path, option)
        raise CannotListen(f"{endpoint.text}: {reason}")
    door = Door(endpoint, outcome[0], reception)
    guard(door.port)
    try:
        _guard(door, access)
    except CannotListen:
        door.close_at_once()
        raise
    return door


def _guard(door: Door, access: Access) -> None:
    """Have the right connections let in.

    :raises CannotListen: the endpoint would be open to more than is allowed.
    """
    endpoint, host = door.endpoint, door.port.getHost()
    auth = endpoint.usual_auth
    local = isinstance(host, UNIXAddress) or _is_loopback(host) or endpoint.kind == "stdio"
    if not local:
        if not access.insecure:
            raise _too_open(endpoint)
        auth = endpoint.auth or Auth.NONE
    door.reception.allowed = access.allowed if auth is Auth.USER else None
    if auth is Auth.USER and isinstance(host, (IPv4Address, IPv6Address)):
        try:
            can_tell(host.host)
        except Unknown as problem:
            raise CannotListen(
                f"{endpoint.text}: the kernel does not tell here whose a connection is "
                f"({problem}): listen on a UNIX socket, or let in anybody by auth=none"
            ) from None


def _too_open(endpoint: Endpoint) -> CannotListen:
    return CannotListen(
        f"{endpoint.text}: anybody who can reach it could run every job: listen on the "
        f"loopback interface (interface=127.0.0.1), or insist by --insecure"
    )


def _is_loopback(host: Any) -> bool:
    """Whether the address of a port cannot be reached from other machines."""
    if not isinstance(host, (IPv4Address, IPv6Address)):
        return False
    address = _number(host.host)
    return address is not None and address.is_loopback


def _number(host: str) -> Number4 | Number6 | None:
    """The address that a text is, in any form that the system takes; None for a name."""
    with contextlib.suppress(ValueError):
        address = ip_address(host.partition("%")[0])
        return getattr(address, "ipv4_mapped", None) or address
    with contextlib.suppress(OSError, ValueError):
        return Number4(socket.inet_aton(host))
    return None
