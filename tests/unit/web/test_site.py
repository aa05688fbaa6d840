"""What a browser may ask of the page, and what every answer says to it."""

from __future__ import annotations

import json

from twisted.internet.address import IPv4Address

from dangad.web.routes import STATIC
from dangad.web.settings import WebSettings
from dangad.web.website import IDLE_TIME, MAX_BODY, MAX_CONNECTIONS
from tests.unit.web.visits import UNIX, Visit, VisitCase


class HeaderTests(VisitCase):
    def test_headers(self) -> None:
        """Whatever the answer, a browser loads nothing from elsewhere, and shows no frame."""
        for path in ("/", "/status.json", "/nothing", "/static/dangad.css", "/jobs?page=x"):
            with self.subTest(path):
                headers = self.get(path).headers
                policy = headers["content-security-policy"].split("; ")
                self.assertIn("default-src 'none'", policy)
                self.assertIn("script-src 'self'", policy)
                self.assertIn("frame-ancestors 'none'", policy)
                self.assertEqual(headers["x-content-type-options"], "nosniff")
                self.assertEqual(headers["referrer-policy"], "same-origin")
                self.assertNotIn("unsafe", headers["content-security-policy"])
                self.assertNotIn("set-cookie", headers)

    def test_kept(self) -> None:
        """Files may be kept by the browser; what the server tells may not."""
        self.assertEqual(self.get("/").headers["cache-control"], "no-store")
        self.assertIn("max-age", self.get("/static/dangad.css").headers["cache-control"])

    def test_head(self) -> None:
        """Only the head is sent where only the head is asked for."""
        whole, head = self.get("/health"), self.send("HEAD /health")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["content-length"], str(len(whole.body)))

    def test_static(self) -> None:
        """The files are there, with their types, and no others."""
        for name, kind in STATIC.items():
            answer = self.get(f"/static/{name}")
            self.assertEqual((answer.status, answer.headers["content-type"]), (200, kind))
        for path in ("/static/htmx.LICENSE", "/static/..%2F__init__.py", "/static/"):
            self.assertEqual(self.get(path).status, 404)


class HostTests(VisitCase):
    settings = WebSettings("tcp:7004:interface=127.0.0.1", hosts=("jobs.example",))

    def test_known(self) -> None:
        """Names of this machine, addresses, and names of --web-host are the page's own."""
        for name in (
            "localhost",
            "localhost:7004",
            "a.localhost",
            "127.0.0.1:7004",
            "[::1]:7004",
            "Jobs.Example",
        ):
            with self.subTest(name):
                self.assertEqual(self.get("/", name=name).status, 200)

    def test_rebinding(self) -> None:
        """Another name that leads here is not answered: it may belong to another site."""
        for name in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.example", "", "["):
            for path in ("/", "/status.json", "/static/dangad.css", "/live/", "/do/pause"):
                with self.subTest(name=name, path=path):
                    self.assertEqual(self.get(path, name=name).status, 421)

    def test_socket(self) -> None:
        """A proxy in front of a UNIX socket may use any name."""
        self.assertEqual(self.get("/", name="jobs.other.example", host=UNIX).status, 200)

    def test_open_address(self) -> None:
        """With --insecure the machine's own address is a name of the page, too."""
        there = IPv4Address("TCP", "192.0.2.7", 7004)
        self.assertEqual(self.get("/", name="192.0.2.7:7004", host=there).status, 200)


class PrefixTests(VisitCase):
    settings = WebSettings("unix:web.sock", prefix="/ops/dangad")

    def test_prefix(self) -> None:
        """Links begin with the prefix, whether the proxy removes it from requests or not."""
        for path in ("/ops/dangad/", "/ops/dangad", "/", "/ops/dangad/jobs", "/jobs"):
            with self.subTest(path):
                answer = self.get(path)
                self.assertEqual(answer.status, 200)
                self.assertIn('href="/ops/dangad/workers"', answer.text)
                self.assertNotIn('href="/workers"', answer.text)
                self.assertIn('src="/ops/dangad/static/htmx.min.js', answer.text)
                self.assertIn('hx-sse:connect="/ops/dangad/live/', answer.text)

    def test_others(self) -> None:
        """A path beside the prefix is not found."""
        self.assertEqual(self.get("/ops").status, 404)
        self.assertEqual(self.get("/ops/other/jobs").status, 404)


class DocumentTests(VisitCase):
    def test_status(self) -> None:
        """The status is told as operators are told it."""
        answer = self.get("/status.json")
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(json.loads(answer.body), self.operations.status_document)

    def test_methods(self) -> None:
        """Nothing but reading is possible, whatever the path."""
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            for path in ("/", "/jobs/120", "/status.json", "/static/dangad.css", "/live/"):
                with self.subTest(f"{method} {path}"):
                    answer = self.send(f"{method} {path}")
                    self.assertEqual(answer.status, 405)
                    self.assertEqual(answer.headers["allow"], "GET, HEAD")

    def test_failure(self) -> None:
        """A page that fails is logged, and tells nothing of the reason."""
        self.operations.workers_document = [{}]
        answer = self.get("/")
        self.assertEqual(answer.status, 500)
        self.assertNotIn("KeyError", answer.text)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class ConnectionTests(VisitCase):
    def test_large_body(self) -> None:
        """A body that is too large is not read to its end."""
        visit = Visit(self.site)
        visit.ask("POST /", body=b"x" * (MAX_BODY + 1))
        self.assertTrue(visit.aborted)

    def test_small_body(self) -> None:
        """A small body is read, and refused for its method."""
        self.assertEqual(self.send("POST /", body=b"x" * 1000).status, 405)

    def test_many(self) -> None:
        """One connection too many is closed at once; when one goes, another may come."""
        visits = [Visit(self.site) for _ in range(MAX_CONNECTIONS)]
        self.assertIsNone(self.site.buildProtocol(None))
        visits[0].channel.connectionLost()
        self.assertIsNotNone(self.site.buildProtocol(None))

    def test_idle(self) -> None:
        """A connection without a request is closed after a while."""
        visit = Visit(self.site)
        self.clock.advance(IDLE_TIME + 1)
        self.assertTrue(visit.transport.disconnecting)

    def test_close(self) -> None:
        """When the server stops, all connections are closed."""
        visit = Visit(self.site)
        closed = self.site.close()
        self.assertTrue(visit.aborted)
        self.assertNoResult(closed)
        visit.channel.connectionLost()
        self.successResultOf(closed)

    def test_close_without_any(self) -> None:
        """Nothing is waited for where nobody is connected."""
        self.successResultOf(self.site.close())
