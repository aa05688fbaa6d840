"""How connections to a server are made: :func:`connect` makes one, a factory makes any number.

Each connection is a :class:`~dangad.Client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet import defer
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory

from dangad.addresses import CLIENT_FORMS, description_of, what_is_wrong
from dangad.client.connection import MAX_PAYLOAD, Client

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IStreamClientEndpoint

DEFAULT_ENDPOINT = "unix:dangad.sock"
"""The endpoint of a server that was started with its defaults in the same directory."""


def connect(
    reactor: Any,
    endpoint: str | IStreamClientEndpoint = DEFAULT_ENDPOINT,
    *,
    max_payload: int = MAX_PAYLOAD,
) -> Deferred[Client]:
    """Connect to the server at `endpoint`.

    Fires with a :class:`Client` when the connection is made. Fails with the endpoint's failure,
    usually a :class:`twisted.internet.error.ConnectError`, or with a ValueError if the endpoint's
    description is not valid. Cancelling it gives up connecting.

    The connection is made only once. When it is lost, the client cannot be used any more. See
    :class:`ClientFactory` for connections that are made again, and why this function does not.

    :param endpoint: a Twisted client endpoint, or its description, like ``unix:dangad.sock`` or
        ``tcp:localhost:7003``, or the path of a UNIX socket.
    :param max_payload: bytes of the largest answer to accept; see the server's ``--max-payload``.
    """
    try:
        target = endpoint_of(reactor, endpoint) if isinstance(endpoint, str) else endpoint
        return cast("Deferred[Client]", target.connect(ClientFactory(max_payload)))
    except Exception:  # noqa: BLE001 - endpoints of plugins may raise anything
        return defer.fail()


def endpoint_of(reactor: Any, text: str) -> IStreamClientEndpoint:
    """Twisted's endpoint of this description, or of the UNIX socket with this path.

    :raises ValueError: the description is not valid; the text says why.
    """
    if not text:
        raise ValueError("it is empty")
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, description_of(text))
    except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
        raise ValueError(what_is_wrong(text, error, CLIENT_FORMS)) from None
    return endpoint


class ClientFactory(Factory):
    """Makes a :class:`Client` for each connection; for endpoints and for Twisted's ClientService.

    A client does not reconnect, because only its user can decide about the jobs whose answers were
    lost with the connection: one may be sent again, another must not run twice, and a third is not
    needed any more. So all unanswered calls fail with :class:`Disconnected`, and a new connection
    is a new client. Twisted's service makes new connections::

        from twisted.application.internet import ClientService
        from twisted.internet.endpoints import clientFromString

        service = ClientService(
            clientFromString(reactor, "tcp:jobs.example.com:7003"), dangad.client.ClientFactory()
        )
        service.startService()
        ...
        client = await service.whenConnected()  # for each job: the client of the moment
        answer = await client.run(Thumbnail, image=image, width=200)
    """

    noisy = False

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        """:param max_payload: bytes of the largest answer that a client accepts."""
        self._max_payload = max_payload

    def buildProtocol(self, addr: IAddress | None) -> Client:
        """A client for a new connection."""
        client = Client(self._max_payload)
        client.factory = self
        return client
