"""What a browser may ask of the page, and what every answer says to it."""

from __future__ import annotations

import json

from twisted.internet.address import IPv4Address
from twisted.web import http

from dangad.web.replies import PIECE, SEND_TIME
from dangad.web.routes import STATIC
from dangad.web.settings import WebSettings
from dangad.web.website import IDLE_TIME, MAX_BODY, MAX_CONNECTIONS, REQUEST_TIME
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


class OtherSiteTests(VisitCase):
    def fetch(self, path: str, site: str, mode: str = "no-cors", dest: str = "image") -> int:
        """The status of what a page of another site asks for."""
        said = (f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {dest}")
        return self.get(path, *said).status

    def test_refused(self) -> None:
        """No page of another site makes the server render anything."""
        for site in ("cross-site", "same-site"):
            for path in ("/", "/jobs", "/metrics", "/status.json", "/live/", "/static/dangad.css"):
                with self.subTest(site=site, path=path):
                    self.assertEqual(self.fetch(path, site), 403)
                    self.assertEqual(self.fetch(path, site, "navigate", "iframe"), 403)
            self.assertEqual(self.fetch("/health", site), 200)
            self.assertEqual(self.fetch("/ready", site), 200)

    def test_link(self) -> None:
        """A link from elsewhere works, and so does everything from the page itself."""
        self.assertEqual(self.fetch("/jobs", "cross-site", "navigate", "document"), 200)
        for site in ("same-origin", "none"):
            self.assertEqual(self.fetch("/jobs", site), 200)


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

    def test_odd_headers(self) -> None:
        """Headers that are not valid are refused, and no failure is logged."""
        for name in ("\xff\xfe", "[::1", "evil@localhost", "localhost/evil"):
            visit = Visit(self.site)
            visit.channel.dataReceived(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode("latin-1"))
            self.clock.advance(0)
            self.assertEqual(visit.answer().status, 421)
        self.assertEqual(self.send("GET /", "Host: localhost").status, 421)
        for accept in (
            b"\xff",
            b"application/openmetrics-text;version=;q=x",
            b"text/plain;version=x",
        ):
            visit = Visit(self.site)
            head = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\n\r\n"
            visit.channel.dataReceived(head % accept)
            for _ in range(100):
                self.clock.advance(0)
            self.assertEqual(visit.answer().status, 200)

    def test_strange_characters(self) -> None:
        """What was asked for is shown with codes for characters that are not simply printed."""
        for path in ("/jobs?sort=%1b%E2%80%AE", "/live/jobs?sort=%1b%E2%80%AE"):
            text = self.get(path).text
            self.assertIn(r"\x1b\u202e", text)
            self.assertNotIn("\x1b", text)

    def test_failures(self) -> None:
        """Failures that somebody can cause at will are counted, and not all logged."""
        self.operations.workers_document = [{}]
        for _ in range(20):
            self.get("/workers")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.site.close()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_failure(self) -> None:
        """A page that fails is logged, and tells nothing of the reason."""
        self.operations.workers_document = [{}]
        answer = self.get("/")
        self.assertEqual(answer.status, 500)
        self.assertNotIn("KeyError", answer.text)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class ConnectionTests(VisitCase):
    def test_large_body(self) -> None:
        """A body that is too large is refused once, and dropped until it ends."""
        visit = Visit(self.site)
        visit.ask("POST /", body=b"x" * (MAX_BODY + 1))
        self.assertEqual(visit.answer().status, 413)
        self.assertEqual(visit.transport.value().count(b"HTTP/1.1"), 1)
        self.assertTrue(visit.transport.disconnecting)

    def test_endless_body(self) -> None:
        """The refusal does not wait for the body, which is dropped for some seconds."""
        for length in ("Content-Length: 99999999999", "Transfer-Encoding: chunked"):
            with self.subTest(length):
                visit = Visit(self.site)
                visit.ask("POST /do/pause", length)
                visit.channel.dataReceived(b"%x\r\n" % 10_000_000 if "chunked" in length else b"")
                for _ in range(5):
                    visit.channel.dataReceived(b"x" * MAX_BODY)
                self.assertEqual(visit.transport.value().count(b"HTTP/1.1 413"), 1)
                self.assertFalse(visit.aborted)
                self.clock.advance(REQUEST_TIME + 1)
                self.assertTrue(visit.aborted)

    def test_small_body(self) -> None:
        """A small body is read, and refused for its method."""
        self.assertEqual(self.send("POST /", body=b"x" * 1000).status, 405)

    def test_body_of_get(self) -> None:
        """Nothing but an order may have a body."""
        self.assertEqual(self.send("GET /", body=b"x").status, 400)

    def test_form_is_not_parsed(self) -> None:
        """A form in parts is never parsed, whoever sends it: parts in parts would take seconds."""
        parsed: list[object] = []
        for name in ("_getMultiPartArgs", "_parseContentType"):
            self.patch(http, name, lambda *said: parsed.append(said))
        for path in ("/", "/do/pause"):
            visit = Visit(self.site)
            kind = "Content-Type: multipart/form-data; boundary=b"
            visit.ask(f"POST {path}", kind, "Content-Length: 8")
            visit.channel.dataReceived(b"--b--\r\n\r")
            self.assertIn(visit.answer().status, (403, 405))
        self.assertEqual(parsed, [])

    def test_many(self) -> None:
        """When there are too many connections, the one that was quiet longest makes room."""
        visits = []
        for _ in range(MAX_CONNECTIONS):
            visits.append(Visit(self.site))
            self.clock.advance(0.01)
        visits[0].ask("GET /health")
        self.clock.advance(0)
        visits[1].ask("GET /live/")
        visits[1].ask("GET /live/")
        self.assertEqual(self.get("/health").status, 200)
        self.assertEqual([place for place, each in enumerate(visits) if each.aborted], [2])

    def test_all_busy(self) -> None:
        """Where every connection is being answered, one more is closed at once."""
        for _ in range(MAX_CONNECTIONS):
            Visit(self.site).channel.waits_since = None
        self.assertIsNone(self.site.buildProtocol(None))

    def test_slow_request(self) -> None:
        """A request must be complete within some seconds of its first byte."""
        visit = Visit(self.site)
        for byte in (b"G", b"E", b"T"):
            visit.channel.dataReceived(byte)
            self.assertFalse(visit.aborted)
            self.clock.advance(REQUEST_TIME / 2.5)
        self.assertTrue(visit.aborted)

    def test_second_request(self) -> None:
        """The time of each request begins with its own first byte."""
        visit = Visit(self.site)
        for _ in range(4):
            visit.ask("GET /health")
            self.clock.advance(0)
            self.clock.advance(REQUEST_TIME / 2)
        self.assertFalse(visit.aborted)
        self.assertEqual(visit.transport.value().count(b"200 OK"), 4)

    def test_last_answer(self) -> None:
        """A connection that ends with an answer does not stay because nobody reads it."""
        visit = Visit(self.site)
        visit.ask("GET /health", "Connection: close")
        self.clock.advance(0)
        self.assertEqual(visit.answer().status, 200)
        self.assertFalse(visit.aborted)
        self.clock.advance(SEND_TIME + 1)
        self.assertTrue(visit.aborted)

    def test_slow_reader(self) -> None:
        """A long answer is written as it is read, and a reader who takes too long is closed."""
        visit = Visit(self.site)
        write = visit.transport.write

        def write_and_fill(data: bytes) -> None:
            write(data)
            visit.channel.pauseProducing()

        visit.transport.write = write_and_fill  # type: ignore[method-assign]
        visit.ask("GET /static/uPlot.iife.min.js")
        self.clock.advance(0)
        before = len(visit.transport.value())
        self.assertLess(before, 2 * PIECE)
        visit.channel.resumeProducing()
        self.assertLess(len(visit.transport.value()), before + 2 * PIECE)
        self.assertGreater(len(visit.transport.value()), before)
        self.clock.advance(SEND_TIME + 1)
        self.assertTrue(visit.aborted)

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
