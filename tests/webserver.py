"""``twistd dangad --web`` in a process of its own, and a small HTTP client for it."""

from __future__ import annotations

import http.client
import json
import re
import socket
from typing import Any

from tests.twistdserver import PATIENCE, ROOT, TwistdServer, wait_for

LOOPBACK = "tcp:0:interface=127.0.0.1"


class UnixConnection(http.client.HTTPConnection):
    """A connection to a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("any.name.of.a.proxy", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class WebServer(TwistdServer):
    """A server that runs Python given as text, with a page."""

    def __init__(self, folder: str, *options: str, web: str = LOOPBACK) -> None:
        """Start it; by default the page has a free port of the loopback interface."""
        jobs = (f"--worker-path={ROOT}", "--jobs=tests.textjobs", "--quarantine-after=0")
        super().__init__(folder, *jobs, f"--web={web}", *options)
        self.port = 0
        if web == LOOPBACK:
            self.port = int(wait_for(lambda: re.search(r"http://127.0.0.1:(\d+)/", self.log()))[1])

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://localhost:{self.port}"

    def visit(self) -> http.client.HTTPConnection:
        """A new connection to the page."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """The status and the body of the answer to a request."""
        return ask(self.visit(), "GET", path, **headers)

    def status(self) -> dict[str, Any]:
        """The status as the page tells it."""
        document: dict[str, Any] = json.loads(self.get("/status.json")[1])
        return document


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, **headers: str
) -> tuple[int, str]:
    """The status and the body of the answer to a request, which is the last of its connection."""
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
