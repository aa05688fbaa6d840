"""Asks the server over the control endpoint: one connection at a time, made again when it is lost.

The screen runs in asyncio, and the client in Twisted's reactor on the same loop.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.protocols.amp import RemoteAmpError

from dangad.client import Disconnected
from dangad.errors import DangadError
from dangad.wire import commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from dangad.client import Client

PATIENCE = 30.0
"""Seconds without an answer after which a connection is given up, and made again."""


class Unreachable(Exception):
    """There is no server, or it does not answer; the text says why, in one line."""


class Refused(Exception):
    """The server has refused an order, or cannot do it; the text says why, in one line."""


class Ask(Protocol):
    """Asks the server for a document."""

    async def __call__(self, name: str, **arguments: Any) -> Any:
        """The document that answers the command of this name; the answer if it has no document.

        :raises Unreachable: there is no answer.
        :raises Refused: the answer is an error.
        """


class Server:
    """The server, as the screen knows it. All mutable state: the connection, if there is one."""

    def __init__(
        self,
        clock: IReactorTime,
        connect: Callable[[], Deferred[Client]],
        explain: Callable[[Exception], str],
        client: Client | None = None,
    ) -> None:
        """Use `client` first.

        :param connect: makes a new connection.
        :param explain: says in one line why there is none.
        """
        self._clock = clock
        self._connect = connect
        self._explain = explain
        self._client = client
        #: Held while a connection is made: there is only one.
        self._connecting = asyncio.Lock()

    async def ask(self, name: str, **arguments: Any) -> Any:
        """See :class:`Ask`."""
        client = await self._connected()
        answer = client.run(getattr(commands, name), arguments)
        answer.addTimeout(PATIENCE, self._clock)
        try:
            response = await _future(answer)
        except (DangadError, RemoteAmpError) as error:
            raise Refused(str(error) or type(error).__name__) from None
        except NoAnswer:
            self._drop(client)
            raise Unreachable(f"no answer within {PATIENCE:g} s") from None
        except Disconnected as error:
            self._drop(client)
            raise Unreachable(str(error)) from None
        return json.loads(response["document"]) if "document" in response else response

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._drop(self._client)

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None:
                try:
                    self._client = await _future(self._connect())
                except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
                    raise Unreachable(self._explain(error)) from None
            return self._client

    def _drop(self, client: Client) -> None:
        """Use this connection no more."""
        if client is self._client:
            self._client = None
        client.close()  # never fails


def _future(deferred: Deferred[Any]) -> asyncio.Future[Any]:
    """The Deferred as asyncio awaits it; who gives up waiting cancels it."""
    return deferred.asFuture(asyncio.get_running_loop())
