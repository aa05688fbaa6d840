"""Where the server listens, and who is let in: an endpoint becomes a door.

Called by :mod:`dangad.service`; :mod:`dangad.server.endpoints` reads the descriptions.

Nothing is open wider than was asked for. A UNIX socket is for its owner unless a mode is named. By
TCP within the machine only the server's own user may connect, unless others are named; beyond the
machine nobody may, unless the operator insists. An address that stands in the description is judged
before it is bound; any other, as that of a name, by what the kernel says was bound.
"""

from __future__ import annotations

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


class CannotListen(Exception):
    """An endpoint cannot be listened on; the text says which and why, in one line."""


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
    address = address_of(host.host)
    return address is not None and address.is_loopback
