"""A connection served by blocking calls: read a request, do the job, write the answer.

Used by the two servers with a process for each connection. They run the very job functions that
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
        reader = BoxReader(_MAX_PAYLOAD, ())
        try:
            while data := client.recv(_READ):
                reader.feed(data)
                while (box := reader.next()) is not None:
                    if box.raw is not None:
                        client.sendall(self.answer(bytes(box.raw)))
        except ConnectionError:
            return

    def answer(self, request: bytes) -> bytes:
        """The answer to the request in a box."""
        strings = unpack(request)
        tag = strings.pop(ASK)
        running = RunningJob(0, strings[COMMAND].decode("ascii"), 1, None, None, None)
        answer = self._performer.perform(strings, running)
        return pair(ERROR if answer.failed else ANSWER, tag) + answer.body


def _wait(_: Any) -> Any:
    raise RuntimeError("none of the jobs here is asynchronous")
