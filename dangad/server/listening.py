"""Opens the endpoints where the server listens, and decides who is admitted: each is a `Door`.

Called by :mod:`dangad.service`; :mod:`dangad.server.endpoints` parses the descriptions.

No door is open to more people than the operator has asked for. A UNIX socket is for its owner
unless a mode is named. By TCP within the machine only the server's own user may connect, unless
others are named. From other machines nobody may connect without ``--insecure``. An address in the
description is checked before it is bound. An address behind a name is checked afterwards, as the
kernel reports it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.tcp import Port
from twisted.python.failure import Failure

from dangad.server.access import Reception
from dangad.server.bindfailure import explain
from dangad.server.endpoints import Auth, address_of
from dangad.server.passeddescriptors import guard
from dangad.server.peers import Allowed, Unknown, can_tell

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort
    from twisted.internet.protocol import Factory

    from dangad.server.endpoints import Endpoint


_ANY = ("0.0.0.0", "::")
"""The addresses that stand for all of this machine's."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
"""The bits of a mode that admit others than the socket's owner: connecting needs write access."""


class CannotListen(Exception):
    """An endpoint cannot be opened; the text says which one and why, in one line."""

    def __str__(self) -> str:
        """The whole line."""
        return f"cannot listen on {super().__str__()}"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect: the part that is the same for all endpoints.

    :ivar allowed: the users, besides the server's own and root, at endpoints that check users.
    :ivar insecure: whether everybody from beyond the machine may connect.
    :ivar owner: the ids of the user and the group that own UNIX sockets; -1 for those of this
        process.
    """

    allowed: Allowed = field(default_factory=Allowed)
    insecure: bool = False
    owner: tuple[int, int] = (-1, -1)


@dataclass(frozen=True, slots=True)
class Door:
    """An open endpoint.

    :ivar endpoint: its description.
    :ivar port: the listening port.
    :ivar reception: decides which connections are admitted.
    :ivar option: the option that named the endpoint.
    """

    endpoint: Endpoint
    port: IListeningPort
    reception: Reception
    option: str

    @property
    def is_open(self) -> bool:
        """Whether neither a mode nor a list of users restricts who may connect."""
        return self.reception.allowed is None and not isinstance(self.port.getHost(), UNIXAddress)

    @property
    def who(self) -> str:
        """Who may connect, in words for people."""
        host = self.port.getHost()
        allowed, mode = self.reception.allowed, self.mode
        if allowed is not None and mode is not None and allowed != Allowed():
            if not mode & _OTHERS:
                return str(Allowed())
            if not mode & stat.S_IWOTH:
                return f"{allowed}, as far as its mode {mode:o} admits them"
        if allowed is not None:
            return str(allowed)
        if isinstance(host, UNIXAddress):
            return "whomever its mode admits"
        if self.endpoint.kind == "stdio":
            return "the standard input"
        return "anybody on this machine" if _is_loopback(host) else "anybody who can reach it"

    @property
    def mode(self) -> int | None:
        """The mode of its UNIX socket; None if it has none."""
        host = self.port.getHost()
        if not isinstance(host, UNIXAddress) or not host.name:
            return None
        try:
            return stat.S_IMODE(os.stat(host.name).st_mode)
        except (OSError, ValueError):  # an abstract socket, or its directory is closed
            return None

    @property
    def warnings(self) -> list[str]:
        """Sentences about who may connect that may surprise an operator."""
        allowed, mode = self.reception.allowed, self.mode
        if self.is_open:
            return [f"{self.who} may connect to {self}"]
        if allowed in (None, Allowed()) or mode is None or mode & _OTHERS:
            return []
        shut_out = (
            f"the mode of {self}, {mode:o}, keeps out the users of --allow-users and --allow-groups"
        )
        return [f"{shut_out}; to let them in, write unix:PATH:mode=666:auth=user"]

    def __str__(self) -> str:
        """Its address for people: that of the page can be opened in a browser, if it is TCP."""
        host = self.port.getHost()
        if self.option == "--web" and isinstance(host, (IPv4Address, IPv6Address)):
            name = "localhost" if host.host in _ANY else host.host
            return f"http://{f'[{name}]' if ':' in name else name}:{host.port}/"
        if (
            isinstance(host, (IPv4Address, IPv6Address))
            and str(host.port) not in self.endpoint.text
        ):
            return f"{self.endpoint.text} (port {host.port})"
        return self.endpoint.text

    def close_at_once(self) -> None:
        """Stop listening without a running reactor, and leave nothing behind."""
        if isinstance(self.port, Port):
            if self.port.connected:
                self.port.connectionLost(Failure(error.ConnectionDone()))
        else:
            stop_listening(self.port).addErrback(lambda _: None)


def stop_listening(port: IListeningPort) -> Deferred[Any]:
    """Stop listening.

    Fires when the port is closed. The port of ``stdio:`` is its only connection, and is not closed.
    """
    return maybeDeferred(getattr(port, "stopListening", lambda: None))


def open_door(
    reactor: Any, endpoint: Endpoint, site: Factory, access: Access, option: str = "--listen"
) -> Door:
    """Open an endpoint; nothing is accepted before the reactor's next turn.

    :param reactor: reads the sockets.
    :param endpoint: the parsed description.
    :param site: the factory of the connections' protocols.
    :param access: who may connect.
    :param option: the option that named the endpoint.
    :raises CannotListen: it cannot be opened, or would be open to more people than allowed.
    """
    if endpoint.reaches_beyond and not access.insecure:
        raise too_open(endpoint, option)
    reception = Reception(site, reactor, endpoint.text, endpoint.strict_priorities)
    if endpoint.kind == "stdio":  # its connection is made at once
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
    door = Door(endpoint, outcome[0], reception, option)
    guard(door.port)
    try:
        _guard(door, access, option)
    except CannotListen:
        door.close_at_once()
        raise
    return door


def _guard(door: Door, access: Access, option: str) -> None:
    """Tell the reception which connections to admit.

    :raises CannotListen: the endpoint would be open to more people than allowed.
    """
    endpoint, host = door.endpoint, door.port.getHost()
    auth = endpoint.usual_auth
    local = isinstance(host, UNIXAddress) or _is_loopback(host) or endpoint.kind == "stdio"
    if not local:
        if not access.insecure:
            raise too_open(endpoint, option)
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


def too_open(endpoint: Endpoint, option: str) -> CannotListen:
    """The error for an endpoint that would be open to more people than allowed."""
    harms = {"--control": "stop the server", "--web": "watch the server"}
    harm = harms.get(option, "run every job")
    return CannotListen(
        f"{endpoint.text}: anybody who can reach it could {harm}: listen on the "
        f"loopback interface (interface=127.0.0.1), or pass --insecure to allow it"
    )


def _is_loopback(host: Any) -> bool:
    """Whether the address of a port cannot be reached from other machines."""
    if not isinstance(host, (IPv4Address, IPv6Address)):
        return False
    address = address_of(host.host)
    return address is not None and address.is_loopback
