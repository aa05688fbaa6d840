"""A job's partial results at the client: a buffer of chunks, and an iterator over it.

:meth:`dangad.Client.stream` makes both ends: the client puts incoming chunks into `Parts`, and the
user takes them out through a :class:`Stream`. The buffer is bounded: when it is full, the client
stops reading its connection.
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
"""Bytes of unread chunks above which the connection is not read."""
ENOUGH_READ = MAX_UNREAD // 2
"""Bytes of unread chunks at which the connection is read again."""
CHUNK_OVERHEAD = 128
"""Bytes that each chunk counts in addition to its own, so that many small chunks count, too."""


class Parts:
    """The unread chunks of one request, and the outcome of the request.

    Always true: while somebody waits, there is no chunk; `full` is only true while the request is
    under way and its chunks are wanted.
    """

    def __init__(self, pace: Callable[[Parts], None]) -> None:
        """Begin empty.

        :param pace: called when `full` has changed.
        """
        #: Whether the connection must not be read.
        self.full = False
        self._pace = pace
        #: The unread chunks.
        self._chunks: deque[bytes] = deque()
        #: The bytes that the unread chunks count.
        self._size = 0
        #: Whether nobody wants any more chunks.
        self._dropping = False
        #: The answer to the request; None before the request is sent.
        self._answer: Deferred[dict[str, Any]] | None = None
        #: The response or the failure; None while the request is under way.
        self._outcome: dict[str, Any] | Failure | None = None
        #: Fires at the next chunk or the end; None while nobody waits.
        self._waiter: Deferred[None] | None = None

    # For the client.

    def belong_to(self, answer: Deferred[dict[str, Any]]) -> None:
        """Take the request's answer as the end of the chunks, when it comes."""
        self._answer = answer
        answer.addBoth(self._ended)

    def put(self, chunk: bytes) -> None:
        """Add the next chunk."""
        if self._dropping:
            return
        self._chunks.append(chunk)
        self._size += len(chunk) + CHUNK_OVERHEAD
        self._wake()
        self._set_pace()

    def lose(self, error: Exception) -> None:
        """End with `error`, because a chunk was lost, and cancel the request."""
        if self._outcome is None and self._answer is not None:
            self._outcome = Failure(error)
            self._dropping = True
            self._answer.cancel()

    # For the stream.

    async def take(self) -> bytes | None:
        """Wait for the next chunk; None after the last one, if the request succeeded.

        :raises Exception: the request's failure, after its chunks.
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
        """Wait for the response; unread chunks are dropped.

        :raises Exception: the request's failure.
        """
        self._drop()
        while self._outcome is None:
            await self._news()
        if isinstance(self._outcome, Failure):
            self._outcome.raiseException()
        response: dict[str, Any] = self._outcome
        return response

    def cancel(self) -> None:
        """Drop the unread chunks, and cancel the request if it is under way."""
        self._drop()
        if self._outcome is None and self._answer is not None:
            self._answer.cancel()

    def _news(self) -> Deferred[None]:
        if self._waiter is not None:
            raise RuntimeError("another reader already waits for this stream")
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

    Made by :meth:`dangad.Client.stream`, for one reader. Each chunk is as the job sent it, and the
    chunks come in the order of sending::

        stream = client.stream(ReadFile, path="big.iso")
        async for chunk in stream:
            copy.write(chunk)
        print(await stream.result())

    If the job fails, the iterator raises the same error as :meth:`dangad.Client.run`, after the
    chunks that came before.

    Leaving the loop by ``break`` or an exception does not stop the job as long as anything refers
    to the stream, as `stream` does here. Put ``async with`` around the loop, which cancels the job
    at the end of the block, or call :meth:`cancel`::

        async with client.stream(ReadFile, path="big.iso") as stream:
            async for chunk in stream:
                ...

    The job is also cancelled when the last reference to the stream is gone before its end, and by
    cancelling the Deferred of a coroutine that waits for a chunk.

    Do not await another call of the same client in the loop: see :meth:`dangad.Client.stream`.
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
        """The job's response; unread chunks are dropped.

        Fires with the response. Fails like :meth:`dangad.Client.run`, and after a :meth:`cancel`
        with :class:`twisted.internet.defer.CancelledError`. Cancelling it cancels the job.
        """
        return Deferred.fromCoroutine(self._result())

    def cancel(self) -> None:
        """Cancel the job, if it has not ended, and drop the unread chunks.

        A coroutine that waits for the stream gets a
        :class:`twisted.internet.defer.CancelledError`.
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
