"""What the page answers, and the headers that every answer has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from dangad.text import printable

if TYPE_CHECKING:
    from twisted.web.server import Request

HTML = "text/html; charset=utf-8"
"""The type of pages."""
TEXT = "text/plain; charset=utf-8"
"""The type of short answers for programs and people."""
JSON = "application/json"
"""The type of documents."""
FORM = b"application/x-www-form-urlencoded"
"""The type of orders."""
PIECE = 16 * 1024
"""Bytes that are written at a time: a longer body is written as its reader takes it."""
SEND_TIME = 60.0
"""Seconds in which a reader must have taken a long body; its connection is closed then."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a browser may load and do for the page: only what the server itself serves."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: browsers would say `Origin: null` with the forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "dangad",
}
"""The headers of every answer."""
MAX_FIELDS = 110
"""Fields of a form: a call has one for each of its arguments, and a few of its own."""

_HOST = frozenset("@/\\?#")
"""Characters that no Host header has."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    body: bytes
    kind: str = HTML
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)

    def send(self, request: Request) -> None:
        """Write it, without the body if only the head is asked for."""
        request.setResponseCode(self.status, HTTPStatus(self.status).phrase.encode())
        request.setHeader("Content-Type", self.kind)
        request.setHeader("Content-Length", str(len(self.body)))
        for name, value in self.headers:
            request.setHeader(name, value)
        if request.method != b"HEAD" and len(self.body) > PIECE:
            Sending(request, self.body).begin()
            return
        if request.method != b"HEAD":
            request.write(self.body)
        request.finish()


@implementer(IPushProducer)
class Sending:
    """A long body on its way to one reader; the bytes may be shared with others."""

    def __init__(self, request: Any, body: bytes) -> None:
        self._request = request
        self._body = body
        #: How many bytes were written.
        self._written = 0
        #: Whether the connection takes no more for now.
        self._full = bool(request.channel.is_full)

    def begin(self) -> None:
        """Write as much as the connection takes, and the rest when it has room."""
        request = self._request
        late = request.channel.callLater(SEND_TIME, request.transport.abortConnection)
        request.notifyFinish().addBoth(lambda _: late.active() and late.cancel())
        request.registerProducer(self, True)
        request.channel.wait()
        self._go_on()

    def pauseProducing(self) -> None:
        """Write nothing, because the connection is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Write again."""
        self._full = False
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._full = True

    def _go_on(self) -> None:
        while not self._full:
            piece = self._body[self._written : self._written + PIECE]
            self._written += len(piece)
            self._request.write(piece)
            if self._written >= len(self._body):
                self._request.unregisterProducer()
                self._request.finish()
                return


def plain(text: str, status: int = 200) -> Reply:
    """A line of text; strange characters are shown by their codes."""
    return Reply(f"{printable(text)}\n".encode(), TEXT, status)


def document(value: Any) -> Reply:
    """A document as JSON."""
    return Reply(json.dumps(value).encode(), JSON)


def redirect(where: str) -> Reply:
    """Sends the browser to another page, after a form."""
    return Reply(b"", TEXT, 303, (("Location", where), ("Cache-Control", "no-store")))


def is_known_host(request: Request, names: tuple[str, ...]) -> bool:
    """Whether the browser knows the page by a name of its own.

    Otherwise it may be on another site's page, whose name was made to lead here (DNS rebinding). An
    address cannot be made to lead elsewhere. Other users' browsers do not reach a UNIX socket.
    """
    if isinstance(request.getHost(), UNIXAddress):
        return True
    name = host_name(header(request, b"host"))
    if name in ("localhost", *names) or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def header(request: Request, name: bytes) -> str:
    """A header, with a character for each byte; empty if it is not there, or is there twice."""
    values = request.requestHeaders.getRawHeaders(name, [])
    return values[0].decode("latin-1") if len(values) == 1 else ""


def host_name(host: str) -> str:
    """The name or the address in a Host header, without its port; empty if it is not valid."""
    if not _HOST.isdisjoint(host):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_same_origin(request: Request) -> bool:
    """Whether a form was sent from a page of this server, as the browser tells."""
    site = request.requestHeaders.getRawHeaders(b"sec-fetch-site", [b"same-origin"])
    origin, host = header(request, b"origin"), header(request, b"host")
    if site != [b"same-origin"] or not host:
        return False
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def is_from_elsewhere(request: Request) -> bool:
    """Whether another site's page asks, as the browser tells, and no person followed a link."""
    if header(request, b"sec-fetch-site") not in ("cross-site", "same-site"):
        return False
    wanted = header(request, b"sec-fetch-mode"), header(request, b"sec-fetch-dest")
    return request.method != b"GET" or wanted != ("navigate", "document")


def has_body(request: Any) -> bool:
    """Whether a body was sent."""
    return bool(request.content.getbuffer())


def read_form(request: Any) -> dict[bytes, list[bytes]] | None:
    """The fields of a form that was sent; None if the body is no form, or has too many fields."""
    if request.requestHeaders.getRawHeaders(b"content-type") != [FORM]:
        return None
    body = request.content.read().decode("latin-1")
    try:
        found = parse_qs(body, True, encoding="latin-1", max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    return {
        name.encode("latin-1"): [value.encode("latin-1") for value in values]
        for name, values in found.items()
    }
