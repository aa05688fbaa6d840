"""Who may connect: connections of other users than are let in are refused before they are read.

Stands between a listening port and the factory of the connections' protocols
(those of :mod:`dangad.server.factory` and :mod:`dangad.operators.control`). Put there by
:mod:`dangad.server.listening`; :mod:`dangad.server.peers` tells whose a connection is.
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
from dangad.server.peers import Allowed, Unknown, owner_of
from dangad.server.refusal import RefusedConnection

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime, ITCPTransport

log = Logger()

MAX_REFUSALS = 20
"""Connections of one endpoint that are told at once that they are refused; more are not told."""


@implementer(ILoggingContext)
class Reception(Factory):
    """The factory of one endpoint, before the one whose protocols serve its connections."""

    noisy = False

    def __init__(
        self, site: Factory, clock: IReactorTime, where: str, outranks: bool = False
    ) -> None:
        """Let in nobody else, to begin with.

        :param site: the factory.
        :param clock: where the time comes from.
        :param where: what the endpoint is called before people.
        :param outranks: whether the priorities of its clients hold among all clients.
        """
        self.site = site
        self._outranks = outranks
        self.clock = clock
        #: Who may connect besides the server's own user and root; None for anybody who can. It
        #: is to be said before the first connection.
        self.allowed: Allowed | None = Allowed()
        #: The connections that are being told that they are refused.
        self.refusals: set[RefusedConnection] = set()
        self._where = where
        self._log = QuietLog(clock, log)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A protocol for a new connection; None to close it at once."""
        return self.make_protocol(addr) if self.allowed is None else _Newcomer(self, addr)

    def make_protocol(self, addr: IAddress | None) -> Any:
        """The factory's protocol for a connection that is let in; None to close it at once."""
        protocol: Any = self.site.buildProtocol(addr)
        if protocol is not None and self._outranks:
            protocol.outranks = True
        return protocol

    def admit(self, transport: ITCPTransport) -> Forbidden | None:
        """Look whose a connection is; None if it is let in, or why not."""
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
            return None
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
        """Hear that the endpoint is listened on."""
        self.site.doStart()

    def doStop(self) -> None:
        """Hear that it is not any more."""
        for refusal in list(self.refusals):
            refusal.transport.abortConnection()
        self._log.flush()
        self.site.doStop()

    def logPrefix(self) -> str:
        """What Twisted calls it in the log."""
        return "dangad"


@implementer(IFileDescriptorReceiver)
class _Newcomer(Protocol):
    """Stands in for a connection's protocol until it is known whose the connection is.

    As soon as that protocol is there, its methods become this one's own: what is read costs no
    more than without the stand-in.
    """

    def __init__(self, reception: Reception, address: IAddress | None) -> None:
        self._reception = reception
        self._address = address

    def makeConnection(self, transport: Any) -> None:
        """Let the connection in, or refuse it."""
        reception = self._reception
        error = reception.admit(transport)
        protocol: Any = None
        if error is None:
            protocol = reception.make_protocol(self._address)
        elif len(reception.refusals) < MAX_REFUSALS:
            protocol = RefusedConnection(reception.clock, error, reception.refusals.discard)
            reception.refusals.add(protocol)
        if protocol is None:
            transport.abortConnection()
            return
        for name in ("dataReceived", "connectionLost", "fileDescriptorReceived"):
            setattr(self, name, getattr(protocol, name, getattr(self, name)))
        protocol.makeConnection(transport)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close a descriptor that nobody wants."""
        dispose(descriptor)
