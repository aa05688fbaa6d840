"""A connection's requests and answers, and a connection that is served by blocking calls.

Used by dangad's rivals here. They run the very job functions that
dangad's workers run, through the same reader of boxes and the same checks, and speak to the same
clients; but there are no rules, no limits, and nobody who sees what happens.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from dangad.wire.boxes import ANSWER, ASK, COMMAND, ERROR, BoxReader, pair, unpack
from dangad.worker.context import RunningJob
from dangad.worker.jobtypes import find_job_types
from dangad.worker.perform import Performer

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

BACKLOG = 4096
"""Connections that wait to be accepted."""

_MAX_PAYLOAD = 64 * 2**20
_READ = 2**18


class Conversations:
    """What a process needs to serve connections, made before it forks, so that forks share it."""

    def __init__(self) -> None:
        job_types = find_job_types(("dangad.examples", "tests.benchmarks.jobs"))
        self._performer = Performer(job_types, _MAX_PAYLOAD, _wait)
        gc.freeze()  # else the collector would write to the pages that forks share

    def serve(self, client: socket.socket) -> None:
        """Do what the client asks for, until it leaves."""
        reader = self.reader()
        try:
            while data := client.recv(_READ):
                reader.feed(data)
                for answer in self.answers(reader):
                    client.sendall(answer)
        except ConnectionError:
            return

    def reader(self) -> BoxReader:
        """What finds the requests in a connection's bytes."""
        return BoxReader(_MAX_PAYLOAD, ())

    def answers(self, reader: BoxReader) -> Iterator[bytes]:
        """The answers to the requests that have come."""
        while (box := reader.next()) is not None:
            if box.raw is not None:
                yield self.answer(bytes(box.raw))

    def answer(self, request: bytes) -> bytes:
        """The answer to the request in a box."""
        strings = unpack(request)
        tag = strings.pop(ASK)
        running = RunningJob(0, strings[COMMAND].decode("ascii"), 1, None, None, None)
        answer = self._performer.perform(strings, running)
        return pair(ERROR if answer.failed else ANSWER, tag) + answer.body


def _wait(_: Any) -> Any:
    raise RuntimeError("none of the jobs here is asynchronous")
