"""One process that waits for all clients at once, and does their jobs itself.

``python -m tests.benchmarks.servers.looping SOCKET``. While it does a job, nobody else is served.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.protocol import Factory, Protocol

from tests.benchmarks.servers.conversation import BACKLOG, Conversations

reactor: Any = installed_reactor


class Looping(Protocol):
    """One client."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._requests = conversations.reader()

    def dataReceived(self, data: bytes) -> None:
        """Do what the client asks for."""
        assert self.transport is not None
        self._requests.feed(data)
        for answer in self._conversations.answers(self._requests):
            self.transport.write(answer)


def main(path: str) -> None:
    """Serve until the process is ended."""
    conversations = Conversations()
    factory = Factory.forProtocol(lambda: Looping(conversations))
    reactor.listenUNIX(path, factory, backlog=BACKLOG)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
