"""A process for each connection, forked when it comes: ``... servers.forking SOCKET``."""

from __future__ import annotations

import os
import signal
import socket
import sys

from tests.benchmarks.servers.conversation import BACKLOG, Conversations


def main(path: str) -> None:
    """Accept and fork until the process is ended."""
    conversations = Conversations()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(BACKLOG)
    while True:
        client, _ = listener.accept()
        with client:
            if os.fork() == 0:
                listener.close()
                conversations.serve(client)
                os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
