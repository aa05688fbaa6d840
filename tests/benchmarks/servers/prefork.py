"""So many processes, forked beforehand, each with one connection at a time.

``python -m tests.benchmarks.servers.prefork SOCKET PROCESSES``. The kernel gives each new
connection to one of those that wait for it.
"""

from __future__ import annotations

import os
import socket
import sys

from tests.benchmarks.servers.conversation import BACKLOG, Conversations


def main(path: str, processes: int) -> None:
    """Fork, and wait until the process is ended."""
    conversations = Conversations()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(BACKLOG)
    for _ in range(processes):
        if os.fork() == 0:
            while True:
                client, _ = listener.accept()
                with client:
                    conversations.serve(client)
    os.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
