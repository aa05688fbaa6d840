"""Everybody who looks at a server: open pages, Prometheus, ``dangad watch`` and ``dangad top``.

``python -m tests.benchmarks.drivers.audience WEB CONTROL``, both of which are UNIX sockets. They
read what they are sent, and do no more with it than they have to, since they share the machine with
the server. A browser or a Prometheus would cost more CPU time, but its own.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.benchmarks import boxes
from tests.benchmarks.drivers import WrongAnswer, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE = 60.0
"""Seconds without a byte after which the server is taken for hung."""
_READ = 2**18
_OK = b"HTTP/1.1 200 "
_UNREAD = 100
"""Questions of the one who does not read."""
ENTRIES = 100
"""Jobs in the table of ``dangad top``."""


def connect(path: str) -> socket.socket:
    """A connection to a UNIX socket."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(PATIENCE)
    connected.connect(path)
    return connected


def get(path: str, what: str) -> bytes:
    """The body of the answer to a request for a page, which has to be a good one."""
    with connect(path) as visit:
        visit.sendall(f"GET {what} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        parts = []
        while data := visit.recv(_READ):
            parts.append(data)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    if head.split()[1:2] != [b"200"]:
        raise WrongAnswer(f"{what}: {head!r:.200}")
    return body


class Operator:
    """A connection to the control endpoint."""

    def __init__(self, path: str) -> None:
        self._socket = connect(path)

    def ask(self, name: str, /, **arguments: object) -> None:
        """Send a request."""
        pairs = {"_ask": "1", "_command": f"dangad.control.{name}", **arguments}
        packed = (boxes.pair(key.encode(), str(each).encode()) for key, each in pairs.items())
        self._socket.sendall(b"".join(packed) + boxes.END)

    def receive(self) -> bytes:
        """The document of the next answer, as JSON."""
        box = b""
        while not (end := boxes.end_of(box)):
            more = self._socket.recv(_READ)
            if not more:
                raise WrongAnswer("the server has closed an operator's connection")
            box += more
        if end != len(box):
            raise WrongAnswer("more than one answer")
        return b"".join(value for key, value in boxes.pairs_of(box) if key.startswith(b"document"))

    def call(self, name: str, /, **arguments: object) -> bytes:
        """Ask, and wait for the document."""
        self.ask(name, **arguments)
        return self.receive()


class Audience:
    """All of them; each has a thread, which ends with the process."""

    def __init__(self, web: str, control: str) -> None:
        self._web = web
        self._control = control
        #: How often each of them was told something.
        self._seen: Counter[str] = Counter()
        #: What went wrong.
        self._failed: list[str] = []
        #: The connection of the one who does not read.
        self._deaf: Operator | None = None

    def pages(self, views: list[str], each: int) -> None:
        """Open so many pages of each view, and keep them open."""
        selector = selectors.DefaultSelector()
        for view in views * each:
            visit = connect(self._web)
            visit.sendall(f"GET /live{view} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = visit.recv(_READ)
            if not head.startswith(_OK):
                raise WrongAnswer(f"{view}: {head!r:.200}")
            selector.register(visit, selectors.EVENT_READ, view)
        self._start(lambda: self._read_pages(selector))

    def prometheus(self, interval: float) -> None:
        """Ask for the metrics, again and again."""
        self._repeat("/metrics", interval, lambda: get(self._web, "/metrics"))

    def watch(self) -> None:
        """Watch all events."""
        operator = Operator(self._control)
        told = json.loads(operator.call("Watch", after=0))

        def go_on() -> None:
            nonlocal told
            while True:
                told = json.loads(operator.call("Watch", after=told["next"]))
                self._seen["watch"] += 1

        self._start(go_on)

    def watch_without_reading(self) -> None:
        """Ask for all events many times, and never read."""
        self._deaf = Operator(self._control)
        for _ in range(_UNREAD):
            self._deaf.ask("Watch", after=0)

    def top(self) -> None:
        """Ask each second for everything that ``dangad top`` can show."""
        operator = Operator(self._control)

        def look() -> None:
            operator.call("Status")
            operator.call("Workers")
            operator.call("Jobs", sort="-age", limit=ENTRIES)
            operator.call("Commands")

        self._repeat("top", 1.0, look)

    def seen(self) -> Mapping[str, int]:
        """How often each of them was told something since this was asked before.

        :raises WrongAnswer: one of them was told something wrong.
        """
        if self._failed:
            raise WrongAnswer("; ".join(self._failed))
        seen, self._seen = self._seen, Counter()
        return seen

    def scrape(self) -> float:
        """The seconds that the metrics take."""
        began = time.perf_counter()
        get(self._web, "/metrics")
        return time.perf_counter() - began

    def sizes(self, pages: list[str], documents: list[str]) -> Mapping[str, int]:
        """The bytes of pages and of documents, the latter with as many entries as may be."""
        sizes = {page: len(get(self._web, page)) for page in pages}
        operator = Operator(self._control)
        most: dict[str, object] = {"limit": 1000}
        for name in documents:
            more = most if name in ("Jobs", "Clients", "Recent") else {}
            sizes[name] = len(operator.call(name, **more))
        return sizes

    def _read_pages(self, selector: selectors.BaseSelector) -> None:
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if not key.fileobj.recv(_READ):
                    raise WrongAnswer(f"the server has closed a page: {key.data}")
                self._seen["pages"] += 1

    def _repeat(self, name: str, interval: float, act: Callable[[], object]) -> None:
        """Do something at every interval, or as soon as it can be done again."""

        def go_on() -> None:
            while True:
                began = time.monotonic()
                act()
                self._seen[name] += 1
                time.sleep(max(0.0, began + interval - time.monotonic()))

        self._start(go_on)

    def _start(self, act: Callable[[], object]) -> None:
        """Do something in a thread; remember why it ended."""

        def run() -> None:
            try:
                act()
            except (OSError, WrongAnswer) as error:
                self._failed.append(f"{type(error).__name__}: {error}")

        threading.Thread(target=run, daemon=True).start()


if __name__ == "__main__":
    audience = Audience(*sys.argv[1:])
    serve(
        {
            "pages": audience.pages,
            "prometheus": audience.prometheus,
            "watch": audience.watch,
            "watch_without_reading": audience.watch_without_reading,
            "top": audience.top,
            "seen": audience.seen,
            "scrape": audience.scrape,
            "sizes": audience.sizes,
        }
    )
