"""The floor: one client, one worker, and between them a parent that blocks.

``python -m tests.benchmarks.servers.blocking_relay SOCKET``. It passes on what one read gives, so
it is right only for boxes that come in one piece, one at a time.
"""

from __future__ import annotations

import socket
import subprocess
import sys

READ = 2**16


def main(path: str) -> None:
    """Serve clients, one after the other."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.servers.lean_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        client, _ = listener.accept()
        with client:
            while box := client.recv(READ):
                worker.stdin.write(box)
                answer = worker.stdout.read(READ)
                if not answer:
                    return
                client.sendall(answer)


if __name__ == "__main__":
    main(sys.argv[1])
