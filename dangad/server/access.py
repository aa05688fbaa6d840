"""Who may connect: connections of users who are not admitted are refused before they are read.

It stands between a listening port and the factory of the connections' protocols, in
:mod:`dangad.server.factory` or :mod:`dangad.operators.control`. :mod:`dangad.server.listening`
makes it; :mod:`dangad.server.peers` finds the user of a connection.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IFileDescriptorReceiver, ILoggingContext
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from zope.interface import implementer

from dangad.errors import Forbidden
from dangad.host.quietlog import QuietLog
from dangad.server.passeddescriptors import dispose
from dangad.server.peers import Allowed, Owner, Unknown, owner_of
from dangad.server.refusal import RefusedConnection

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime, ITCPTransport

log = Logger()

MAX_REFUSALS = 20
"""Refused connections of one endpoint that get an error at a time; more are closed without one."""


@implementer(ILoggingContext)
class Reception(Factory):
    """The factory of one endpoint, in front of the factory whose protocols serve connections."""

    noisy = False

    def __init__(
        self, site: Factory, clock: IReactorTime, where: str, outranks: bool = False
    ) -> None:
        """Begin by admitting only the server's own user and root.

        :param site: the factory behind.
        :param clock: the source of time.
        :param where: the endpoint's name for people.
        :param outranks: whether the priorities of the endpoint's clients hold among all clients.
        """
        self.site = site
        #: Makes a connection that is refused, in the protocol of the factory behind.
        self.refuse: type[RefusedConnection] = getattr(site, "refused", RefusedConnection)
        self._outranks = outranks
        self.clock = clock
        #: Who may connect besides the server's own user and root; None for everybody who can reach
        #: the endpoint. It must be set before the first connection.
        self.allowed: Allowed | None = Allowed()
        #: The refused connections that wait for their error.
        self.refusals: set[RefusedConnection] = set()
        self._where = where
        self._log = QuietLog(clock, log)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol of a new connection; None to close the connection at once."""
        return self.make_protocol(addr) if self.allowed is None else _Newcomer(self, addr)

    def make_protocol(self, addr: IAddress | None, user: int | None = None) -> Any:
        """The factory's protocol for an admitted connection; None to close the connection at once.

        :param user: the user at the other end; None if not known.
        """
        protocol: Any = self.site.buildProtocol(addr)
        if protocol is not None and self._outranks:
            protocol.outranks = True
        if protocol is not None and user is not None:
            protocol.user = user
        return protocol

    def admit(self, transport: ITCPTransport) -> Owner | Forbidden:
        """The owner of a connection if it is admitted, otherwise why it is not."""
        try:
            owner = owner_of(transport)
        except Unknown as error:
            self._log.warn(
                "unknown",
                None,
                "refused a connection to {where}: it is not known whose it is: {reason}",
                where=self._where,
                reason=str(error),
            )
            return Forbidden(f"the server does not know whose this connection is: {error}")
        allowed = self.allowed
        if allowed is None or allowed.admits(owner):
            return owner
        self._log.warn(
            "user",
            owner.user,
            "refused a connection of user {user} to {where}, which is for {allowed}",
            user=owner.user,
            where=self._where,
            allowed=str(allowed),
        )
        return Forbidden(
            f"user {owner.user} may not connect here; the server runs as user {os.geteuid()}, and "
            f"this endpoint is for {allowed}, unless its operator lets in others"
        )

    def doStart(self) -> None:
        """Note that the endpoint is open."""
        self.site.doStart()

    def doStop(self) -> None:
        """Note that the endpoint is closed."""
        for refusal in list(self.refusals):
            refusal.transport.abortConnection()
        self._log.flush()
        self.site.doStop()

    def logPrefix(self) -> str:
        """The endpoint's prefix in Twisted's log."""
        return "dangad"


@implementer(IFileDescriptorReceiver)
class _Newcomer(Protocol):
    """Stands in for a connection's protocol until the user of the connection is known.

    Then the methods of the real protocol become its own, so that reading costs no more than without
    the stand-in.
    """

    def __init__(self, reception: Reception, address: IAddress | None) -> None:
        self._reception = reception
        self._address = address

    def makeConnection(self, transport: Any) -> None:
        """Admit the connection, or refuse it."""
        reception = self._reception
        owner = reception.admit(transport)
        protocol: Any = None
        if isinstance(owner, Owner):
            protocol = reception.make_protocol(self._address, owner.user)
        elif len(reception.refusals) < MAX_REFUSALS:
            protocol = reception.refuse(reception.clock, owner, reception.refusals.discard)
            reception.refusals.add(protocol)
        if protocol is None:
            transport.abortConnection()
            return
        for name in ("dataReceived", "connectionLost", "fileDescriptorReceived"):
            setattr(self, name, getattr(protocol, name, getattr(self, name)))
        protocol.makeConnection(transport)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close a descriptor that the peer has passed."""
        dispose(descriptor)
