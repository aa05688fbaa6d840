"""A client of AMP without Twisted's reactor: one socket, which blocks, and no patience for ever."""

import socket
from typing import Self

from dangad.wire import boxes

PATIENCE = 60.0
"""Seconds after which what should have come is taken for lost."""


class BlockingPeer:
    """One connection to a server."""

    def __init__(self, where: str | socket.socket) -> None:
        """Connect to the UNIX socket of this path, or take over a connection."""
        if isinstance(where, str):
            path, where = where, socket.socket(socket.AF_UNIX)
            where.settimeout(PATIENCE)
            where.connect(path)
        self.socket = where
        self._reader = boxes.BoxReader(2**30, ())
        self._asked = 0
        self.answers: dict[bytes, dict[bytes, bytes]] = {}
        self.news: list[dict[bytes, bytes]] = []
        """The boxes that came and are no answers: progress and parts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, command: bytes, **arguments: bytes) -> bytes:
        """Send a request; its tag."""
        self._asked += 1
        tag = b"%d" % self._asked
        pairs = [(boxes.ASK, tag), (boxes.COMMAND, command)]
        pairs += [(key.encode(), value) for key, value in arguments.items()]
        self.socket.sendall(boxes.pack(pairs))
        return tag

    def answer(self, tag: bytes) -> dict[bytes, bytes]:
        """Wait for the answer to a request, or its error; the pairs."""
        while tag not in self.answers:
            self._read()
        return self.answers[tag]

    def call(self, command: bytes, **arguments: bytes) -> dict[bytes, bytes]:
        """Send a request, and wait for its answer."""
        return self.answer(self.ask(command, **arguments))

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _read(self) -> None:
        data = self.socket.recv(2**18)
        if not data:
            raise EOFError("the server closed the connection")
        self._reader.feed(data)
        while (box := self._reader.next()) is not None:
            assert box.raw is not None
            pairs = boxes.unpack(bytes(box.raw))
            tag = pairs.get(boxes.ANSWER, pairs.get(boxes.ERROR))
            if tag is None:
                self.news.append(pairs)
            else:
                assert tag not in self.answers, f"two answers for {tag!r}"
                self.answers[tag] = pairs


def code_of(answer: dict[bytes, bytes]) -> str:
    """The error code of an answer, or "ok"."""
    return answer.get(boxes.ERROR_CODE, b"ok").decode()


def text_of(answer: dict[bytes, bytes]) -> str:
    """The text of an error; nothing if it is none."""
    return answer.get(boxes.ERROR_DESCRIPTION, b"").decode()
