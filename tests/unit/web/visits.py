"""A browser in memory: requests to a page whose server is made of documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from dangad.web.settings import WebSettings
from dangad.web.website import Visitor, WebSite
from tests.unit.web.busyoperations import BusyOperations

TCP = IPv4Address("TCP", "127.0.0.1", 7004)
UNIX = UNIXAddress("/run/dangad/web.sock")


@dataclass
class Answer:
    """What the server has written."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()


class Visit:
    """One connection."""

    def __init__(self, site: WebSite, host: Any = TCP) -> None:
        """Connect.

        :param host: where the server listens.
        """
        self.transport = StringTransport(hostAddress=host)
        self.aborted = False
        self.transport.abortConnection = self._abort  # type: ignore[method-assign]
        self.channel: Visitor = site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def _abort(self) -> None:
        self.aborted = True

    def ask(self, line: str, *headers: str, body: bytes = b"", host: str = "localhost") -> None:
        """Send a request."""
        lines = [f"{line} HTTP/1.1", f"Host: {host}", *headers]
        if body:
            lines += [
                f"Content-Length: {len(body)}",
                "Content-Type: application/x-www-form-urlencoded",
            ]
        self.channel.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)

    def answer(self) -> Answer:
        """The answer so far; one without a length has its chunks as they were sent."""
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        return Answer(int(first.split()[1]), headers, body)


class VisitCase(SynchronousTestCase):
    """Has a page at a clock that stands still."""

    settings = WebSettings("unix:web.sock")

    def setUp(self) -> None:
        """Make the page."""
        self.clock = Clock()
        self.operations = BusyOperations(self.clock)
        self.site = self.make_site(self.settings)

    def make_site(self, settings: WebSettings) -> WebSite:
        """A page that is served until the end of the test."""
        site = WebSite(self.clock, self.operations, settings)
        site.doStart()
        self.addCleanup(site.doStop)
        return site

    def get(self, path: str, *headers: str, **more: Any) -> Answer:
        """The answer to a request for this path."""
        return self.send(f"GET {path}", *headers, **more)

    def send(
        self, line: str, *headers: str, body: bytes = b"", name: str = "localhost", host: Any = TCP
    ) -> Answer:
        """The answer to a request, after as many turns as it takes."""
        visit = Visit(self.site, host)
        visit.ask(line, *headers, body=body, host=name)
        for _ in range(100):
            self.clock.advance(0)
        return visit.answer()
