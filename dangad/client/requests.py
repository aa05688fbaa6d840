"""The requests under way over one connection, and the effect of the server's boxes on them.

Kept by :mod:`dangad.client.connection`, which writes the requests and reads the boxes.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dangad.errors import BadResponse, TooLarge
from dangad.wire import boxes, commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.protocols import amp

    from dangad.client.calls import Call
    from dangad.client.streams import Parts

log = Logger()


class Disconnected(ConnectionError):
    """The connection was closed before the answer came; whether the job ran is unknown.

    The server ends the jobs of a client that disconnects, unless their type says that they finish.
    But the job may have ended before. If it may safely run twice, send the request again over a
    new connection.
    """


class NotSent(Disconnected):
    """The connection was closed before the request could be sent; nothing ran.

    The request may be sent again over a new connection.
    """


class _Request:
    """A request under way.

    :ivar call: the command, as it was prepared for sending.
    :ivar answer: fires with the response, or fails.
    :ivar progress: called for each progress report; None if none are wanted.
    :ivar parts: takes the chunks; None if none are wanted.
    """

    __slots__ = ("answer", "call", "parts", "progress")

    def __init__(
        self,
        call: Call,
        answer: Deferred[Any],
        progress: Callable[[int, int, str], object] | None,
        parts: Parts | None,
    ) -> None:
        self.call = call
        self.answer = answer
        self.progress = progress
        self.parts = parts


class Requests:
    """The unanswered requests of one connection.

    A tag stays here until the server has answered it, even if the user has cancelled the request.
    """

    def __init__(self, max_payload: int, cancel: Callable[[bytes], object]) -> None:
        """Begin without requests.

        :param max_payload: bytes of the largest answer that is accepted.
        :param cancel: called with the tag of a request that its user has cancelled.
        """
        self._max_payload = max_payload
        self._cancel = cancel
        self._next_tag = itertools.count(1).__next__
        #: The requests by tag; None in place of a cancelled one.
        self._pending: dict[bytes, _Request | None] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def begin(
        self,
        call: Call,
        progress: Callable[[int, int, str], object] | None,
        parts: Parts | None,
    ) -> tuple[bytes, Deferred[dict[str, Any]]]:
        """Add a request that is about to be sent.

        :param call: the command.
        :param progress: called for each progress report; None if none are wanted.
        :param parts: takes the chunks; None if none are wanted.
        :return: the request's tag, and the Deferred of its answer. The Deferred fires with the
            response; cancelling it calls `cancel` with the tag.
        """
        tag = b"%d" % self._next_tag()
        answer: Deferred[dict[str, Any]] = Deferred(partial(self._cancelled, tag))
        self._pending[tag] = _Request(call, answer, progress, parts)
        return tag, answer

    def answered(self, tag: bytes, failed: bool, box: boxes.Box) -> None:
        """Take the answer to a request.

        :param tag: the request's tag.
        :param failed: whether the answer is an error.
        :param box: the box of the answer.
        :raises dangad.wire.boxes.Garbage: no request under way has this tag.
        """
        if tag not in self._pending:
            raise boxes.Garbage(f"an answer to {tag[:40]!r}, which was not asked or is answered")
        request = self._pending.pop(tag)
        if request is None:
            return
        call, answer = request.call, request.answer
        if box.raw is None:
            answer.errback(
                TooLarge(
                    f"the answer to {call.name} is {box.size} bytes, and this client takes "
                    f"{self._max_payload} (max_payload)"
                )
            )
            return
        strings = boxes.unpack(bytes(box.raw))
        if failed:
            answer.errback(call.error(strings))
            return
        try:
            response = call.response(strings)
        except BadResponse as error:
            answer.errback(error)
        else:
            answer.callback(response)

    def chunk_came(self, box: boxes.Box) -> None:
        """Take a part of a result; drop it if its request is not under way any more.

        :raises dangad.wire.boxes.Garbage: the box cannot be read.
        """
        if box.raw is None:
            self._lose_chunk(box.size)
            return
        news = _read_news(commands.Chunk, bytes(box.raw))
        request = self._pending.get(news["tag"])
        if request is not None and request.parts is not None:
            request.parts.put(news["data"])

    def progress_came(self, box: boxes.Box) -> None:
        """Take a progress report; drop it if its request is not under way any more.

        :raises dangad.wire.boxes.Garbage: the box cannot be read.
        """
        if box.raw is None:
            return
        news = _read_news(commands.Progress, bytes(box.raw))
        request = self._pending.get(news["tag"])
        if request is not None and request.progress is not None:
            try:
                request.progress(news["done"], news["total"], news["message"])
            except Exception:  # noqa: BLE001 - other answers come over the same connection
                log.failure("the progress callback of {command}", command=request.call.name)

    def disconnected(self, why: str) -> None:
        """Fail all requests, because the connection is closed.

        :param why: the reason in a few words.
        """
        for tag in list(self._pending):  # taken off one by one: their callbacks may cancel others
            request = self._pending.pop(tag)
            if request is not None:
                request.answer.errback(
                    Disconnected(
                        f"the connection was closed before the answer to {request.call.name} "
                        f"came, and whether it ran is unknown ({why})"
                    )
                )

    def _cancelled(self, tag: bytes, _answer: Deferred[Any]) -> None:
        self._pending[tag] = None
        self._cancel(tag)

    def _lose_chunk(self, size: int) -> None:
        """Give up all streams: one of them has lost a chunk, and nobody knows which."""
        text = f"a chunk of {size} bytes came, and this client takes {self._max_payload}"
        for request in list(self._pending.values()):
            if request is not None and request.parts is not None:
                request.parts.lose(TooLarge(f"{text} (max_payload)"))


def _read_news(command: type[amp.Command], raw: bytes) -> dict[str, Any]:
    """The arguments of a message about a request under way.

    :raises dangad.wire.boxes.Garbage: the message cannot be read.
    """
    try:
        news: dict[str, Any] = command.parseArguments(boxes.unpack(raw), None)
    except (KeyError, ValueError):
        raise boxes.Garbage(f"a {command.commandName.decode()} that cannot be read") from None
    return news
