"""How a connection to a server is made: :func:`connect` for one, a factory for those that return.

Each of them is a :class:`~dangad.Client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet import defer
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory

from dangad.client.connection import MAX_PAYLOAD, Client

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IStreamClientEndpoint

DEFAULT_ENDPOINT = "unix:dangad.sock"
"""Where a server started with the defaults, from the same directory, is found."""


def connect(
    reactor: Any,
    endpoint: str | IStreamClientEndpoint = DEFAULT_ENDPOINT,
    *,
    max_payload: int = MAX_PAYLOAD,
) -> Deferred[Client]:
    """A client of the server at `endpoint`.

    Fires with a :class:`Client` once the connection is made. Fails with what the endpoint fails
    with (a :class:`twisted.internet.error.ConnectError`, mostly), or with a ValueError or
    TypeError if the endpoint's description cannot be read. Cancelling it gives up connecting.

    The connection is made once. When it is lost, the client is of no more use: see
    :class:`ClientFactory` for one that comes back, and for why that is not done here.

    :param endpoint: a Twisted client endpoint, or its description, like ``unix:dangad.sock`` or
        ``tcp:localhost:7003``.
    :param max_payload: bytes of the largest answer to take; like the server's ``--max-payload``.
    """
    try:
        target = clientFromString(reactor, endpoint) if isinstance(endpoint, str) else endpoint
        return cast("Deferred[Client]", target.connect(ClientFactory(max_payload)))
    except Exception:  # noqa: BLE001 - what is wrong with an endpoint is said by anybody's code
        return defer.fail()


class ClientFactory(Factory):
    """Makes a :class:`Client` for each connection; for endpoints and for Twisted's ClientService.

    A client does not reconnect. Only its user knows what is to become of the jobs whose answers
    were lost with the connection: one may be sent again, another must not run twice, a third is
    of no use any more. So a lost connection is told to whoever waits for an answer, as
    :class:`Disconnected`, and a new connection is a new client. Twisted's service makes them::

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
        """Remember the size in bytes of the largest answer that clients take."""
        self._max_payload = max_payload

    def buildProtocol(self, addr: IAddress | None) -> Client:
        """A client for a new connection."""
        client = Client(self._max_payload)
        client.factory = self
        return client
