"""A job's partial results at the client: an iterator of chunks, and what holds them until then.

:meth:`dangad.Client.stream` makes the two ends: `Parts`, into which the client puts the
chunks that come, and the :class:`Stream` that takes them out, which is the user's. What lies
between is bounded: when it is too much, the client is told, and does not read its connection.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

MAX_UNREAD = 2**20
"""Bytes of chunks that may wait to be read; with more, the connection is not read."""
ENOUGH_READ = MAX_UNREAD // 2
"""Bytes of chunks with which it is read again."""
CHUNK_OVERHEAD = 128
"""Bytes that a chunk is counted for beyond its own, so that very many small ones count, too."""


class Parts:
    """The chunks of one request that have come and were not taken, and how the request ended.

    Always true: while somebody waits there is no chunk; what is full is under way, and not
    dropped.
    """

    def __init__(self, pace: Callable[[Parts], None]) -> None:
        """Begin empty.

        :param pace: what to call when `full` has changed.
        """
        #: Whether the connection must not be read.
        self.full = False
        self._pace = pace
        #: The chunks that have come and were not taken.
        self._chunks: deque[bytes] = deque()
        #: The bytes that these are counted for.
        self._size = 0
        #: Whether nobody wants any more chunks.
        self._dropping = False
        #: The answer to the request, once it is asked.
        self._answer: Deferred[dict[str, Any]] | None = None
        #: The response or the failure; None while the request is under way.
        self._outcome: dict[str, Any] | Failure | None = None
        #: Who waits for the next chunk or the end.
        self._waiter: Deferred[None] | None = None

    # For the client.

    def belong_to(self, answer: Deferred[dict[str, Any]]) -> None:
        """Take the answer to the request, when it comes, for the end."""
        self._answer = answer
        answer.addBoth(self._ended)

    def put(self, chunk: bytes) -> None:
        """Take the next chunk."""
        if self._dropping:
            return
        self._chunks.append(chunk)
        self._size += len(chunk) + CHUNK_OVERHEAD
        self._wake()
        self._set_pace()

    def lose(self, error: Exception) -> None:
        """A chunk cannot be had, for `error`, which so is the end; cancel the request."""
        if self._outcome is None and self._answer is not None:
            self._outcome = Failure(error)
            self._dropping = True
            self._answer.cancel()

    # For the stream.

    async def take(self) -> bytes | None:
        """The next chunk, waited for; None when there is no other and the request succeeded.

        :raises Exception: what the request failed with, after its chunks.
        """
        while not self._chunks and self._outcome is None:
            await self._news()
        if self._chunks:
            chunk = self._chunks.popleft()
            self._size -= len(chunk) + CHUNK_OVERHEAD
            self._set_pace()
            return chunk
        if isinstance(self._outcome, Failure):
            self._outcome.raiseException()
        return None

    async def response(self) -> dict[str, Any]:
        """The response, waited for; chunks that were not taken are dropped."""
        self._drop()
        while self._outcome is None:
            await self._news()
        if isinstance(self._outcome, Failure):
            self._outcome.raiseException()
        response: dict[str, Any] = self._outcome
        return response

    def cancel(self) -> None:
        """Drop the chunks, and cancel the request if it is under way."""
        self._drop()
        if self._outcome is None and self._answer is not None:
            self._answer.cancel()

    def _news(self) -> Deferred[None]:
        if self._waiter is not None:
            raise RuntimeError("somebody waits for this stream already")
        self._waiter = Deferred(lambda _: self.cancel())
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _ended(self, outcome: dict[str, Any] | Failure) -> None:
        if self._outcome is None:
            self._outcome = outcome
        self._set_pace()
        self._wake()

    def _drop(self) -> None:
        self._dropping = True
        self._chunks.clear()
        self._size = 0
        self._set_pace()

    def _set_pace(self) -> None:
        full = self._outcome is None and self._size > (ENOUGH_READ if self.full else MAX_UNREAD)
        if full != self.full:
            self.full = full
            self._pace(self)


class Stream:
    """The chunks of one job, as an asynchronous iterator of bytes, and then its response.

    Made by :meth:`dangad.Client.stream`, for one reader. A chunk is what the job sent at
    a time; they come in that order::

        stream = client.stream(ReadFile, path="big.iso")
        async for chunk in stream:
            copy.write(chunk)
        print(await stream.result())

    The iterator raises what :meth:`dangad.Client.run` would fail with, after the chunks
    that came before that. When the stream is dropped before its end, as by ``break`` or by an
    exception that leaves the loop, the job is cancelled. What drops it is the end of the last
    reference to it; to cancel by a certain line of the program, put ``async with`` around the
    loop, or call :meth:`cancel`. Cancelling the Deferred of the coroutine that waits for a chunk
    cancels the job, too.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._thread = threading.get_ident()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._parts.take()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def result(self) -> Deferred[dict[str, Any]]:
        """The job's response, and the end of the chunks: those that were not read are dropped.

        Fires with the response. Fails with what :meth:`dangad.Client.run` would fail
        with; with :class:`twisted.internet.defer.CancelledError` after a :meth:`cancel`.
        Cancelling it cancels the job.
        """
        return Deferred.fromCoroutine(self._result())

    def cancel(self) -> None:
        """Cancel the job, if it has not ended, and drop the chunks that were not read.

        Whoever waits for the stream gets a :class:`twisted.internet.defer.CancelledError`.
        """
        self._parts.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        if threading.get_ident() == self._thread:
            with contextlib.suppress(Exception):  # the connection may be garbage as well
                self._parts.cancel()
            return
        from twisted.internet import reactor  # the garbage collector runs in any thread

        loop: Any = reactor
        loop.callFromThread(self._parts.cancel)

    async def _result(self) -> dict[str, Any]:
        return await self._parts.response()
