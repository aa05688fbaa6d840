"""What the page answers, and the headers that every answer has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twisted.internet.address import UNIXAddress

if TYPE_CHECKING:
    from twisted.web.server import Request

HTML = "text/html; charset=utf-8"
"""The type of pages."""
TEXT = "text/plain; charset=utf-8"
"""The type of short answers for programs and people."""
JSON = "application/json"
"""The type of documents."""

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


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    body: bytes
    kind: str = HTML
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)

    def send(self, request: Request) -> None:
        """Write it, without the body if only the head is asked for."""
        request.setResponseCode(self.status)
        request.setHeader("Content-Type", self.kind)
        request.setHeader("Content-Length", str(len(self.body)))
        for name, value in self.headers:
            request.setHeader(name, value)
        if request.method != b"HEAD":
            request.write(self.body)
        request.finish()


def plain(text: str, status: int = 200) -> Reply:
    """A line of text."""
    return Reply(f"{text}\n".encode(), TEXT, status)


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
    name = host_name(request.getHeader("host") or "")
    if name in ("localhost", *names) or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def host_name(host: str) -> str:
    """The name or the address in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_same_origin(request: Request) -> bool:
    """Whether a form was sent from a page of this server, as the browser tells."""
    site = request.getHeader("sec-fetch-site")
    origin, host = request.getHeader("origin"), request.getHeader("host")
    if site is not None and site != "same-origin":
        return False
    return bool(origin and host) and urlsplit(origin).netloc.lower() == str(host).lower()
