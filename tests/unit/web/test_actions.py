"""Orders: from this page alone, with its token, and by POST alone."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from twisted.internet import defer

from dangad.errors import ReloadFailed, ShuttingDown
from dangad.web.actions import MAX_OUTCOMES, ORDERS
from dangad.web.replies import FORM, MAX_FIELDS
from dangad.web.settings import WebSettings
from tests.unit.web.busyoperations import HOSTILE
from tests.unit.web.test_pages import PATHS, Outline
from tests.unit.web.visits import Answer, Visit, VisitCase

HERE = "http://localhost"


class ActionsCase(VisitCase):
    settings = WebSettings("unix:web.sock", prefix="/ops", actions=True)

    def token(self) -> str:
        """The token that the page's forms have."""
        for each in Outline(self.get("/jobs/120").text).all("input"):
            if each["name"] == "token":
                return each["value"] or ""
        raise AssertionError("no form has a token")

    def post(self, order: str, *headers: str, origin: str = HERE, **fields: Any) -> Answer:
        """Give an order as a browser does."""
        body = urlencode({"token": self.token(), "back": "/ops/jobs", **fields}).encode()
        said = [f"Origin: {origin}"] if origin else []
        return self.send(f"POST /ops/do/{order}", *said, *headers, body=body)

    def outcome(self, order: str, **fields: Any) -> str:
        """The page that a browser shows after an order."""
        answer = self.post(order, **fields)
        self.assertEqual(answer.status, 303)
        shown = self.get(answer.headers["location"])
        self.assertEqual(shown.status, 200)
        return shown.text


class OrderTests(ActionsCase):
    def test_cancel(self) -> None:
        """A job is cancelled, and the page says what became of it."""
        text = self.outcome("cancel", ids=120)
        self.assertEqual(self.operations.orders, [("cancel", [120], 1000)])
        self.assertIn("stopping", text)
        self.assertIn("&lt;script&gt;", text)

    def test_cancel_matching(self) -> None:
        """All jobs that match a filter are cancelled, with a bound, and the rest is told."""
        text = self.outcome("cancel", command="Thumbnail", older_than="5m")
        wanted = {"command": "Thumbnail", "older_than": 300.0}
        self.assertEqual(self.operations.orders, [("cancel", wanted, 1000)])
        self.assertIn("3 jobs left", text)

    def test_form_of_filter(self) -> None:
        """The form that cancels all has the filter that the list shows."""
        outline = Outline(self.get("/ops/jobs?command=Thumbnail&older_than=5m").text)
        hidden = [(each["name"], each["value"]) for each in outline.all("input")]
        self.assertIn(("older_than", "5m"), hidden[-3:])
        self.assertIn(("command", "Thumbnail"), hidden[-3:])

    def test_pause(self) -> None:
        """One command is paused, or everything, and resumed."""
        self.assertIn("Paused now: Thumbnail", self.outcome("pause", command="Thumbnail"))
        self.assertIn("Everything is paused", self.outcome("pause"))
        self.assertIn("Nothing is paused", self.outcome("resume"))
        self.assertEqual(
            self.operations.orders, [("pause", ["Thumbnail"]), ("pause", None), ("resume", None)]
        )

    def test_scale(self) -> None:
        """Numbers of workers are set, and numbers that make no sense are not."""
        self.assertIn("2 to 3 workers", self.outcome("scale", min=2, max=3))
        self.assertEqual(self.operations.wanted, [(2, 3)])
        self.assertIn("make no sense", self.outcome("scale", min=3, max=2))
        self.assertIn("min=-1 is not a whole number", self.outcome("scale", min=-1, max=2))
        self.assertEqual(len(self.operations.wanted), 1)

    def test_reload(self) -> None:
        """A reload is begun, and not waited for."""
        self.assertIn("has begun", self.outcome("reload"))
        [waiter] = self.operations.reloads
        waiter.errback(ReloadFailed("no such module"))

    def test_reload_refused(self) -> None:
        """A reload that is refused at once says why."""
        stopping = defer.fail(ShuttingDown("the server is stopping"))
        self.operations.reload = lambda: stopping  # type: ignore[method-assign]
        self.assertIn("the server is stopping", self.outcome("reload"))

    def test_stack(self) -> None:
        """The stack of a job is shown, and why there is none."""
        self.assertIn("line 12 in shrink", self.outcome("stack", job=120))
        self.assertIn("no job 7 runs", self.outcome("stack", job=7))

    def test_unknown(self) -> None:
        """Other orders do not exist."""
        self.assertEqual(self.post("shutdown").status, 404)
        self.assertEqual(self.post("pause/all").status, 404)

    def test_outcomes_are_bounded(self) -> None:
        """The latest outcomes are kept."""
        places = [self.post("pause").headers["location"] for _ in range(MAX_OUTCOMES + 1)]
        self.assertEqual([self.get(place).status for place in (places[0], places[1])], [404, 200])

    def test_back(self) -> None:
        """The way back leads to this server alone."""
        for back, there in (
            ("/ops/jobs?page=2", "/ops/jobs?page=2"),
            ("https://evil.example/", "/ops/"),
            ("//evil.example/", "/ops/"),
            ("/ops/\\evil", "/ops/"),
            ("javascript:alert(1)", "/ops/"),
        ):
            with self.subTest(back):
                text = self.outcome("pause", back=back)
                links = [each["href"] for each in Outline(text).all("a")]
                self.assertIn(there, links)
                self.assertFalse([link for link in links if link and "evil" in link])

    def test_names(self) -> None:
        """A command of a strange name can be paused, and is text in the log and on the page."""
        text = self.outcome("pause", command=HOSTILE)
        self.assertNotIn("<script>", text)
        self.assertEqual(self.operations.orders, [("pause", [HOSTILE])])


class ForgeryTests(ActionsCase):
    def assert_refused(self, answer: Answer) -> None:
        """The order was not carried out."""
        self.assertEqual(answer.status, 403)
        self.assertEqual(self.operations.orders, [])

    def test_token(self) -> None:
        """An order without the token of this start of the server is refused."""
        for token in ("", "x", "é", self.token()[:-1]):
            self.assert_refused(self.post("pause", token=token))

    def test_origin(self) -> None:
        """An order from another site's page is refused, even with the token."""
        for origin in (
            "http://evil.example",
            "http://localhost:81",
            "null",
            "",
            "http://localhost.evil.example",
        ):
            with self.subTest(origin):
                self.assert_refused(self.post("pause", origin=origin))

    def test_fetch_site(self) -> None:
        """So is one that the browser says comes from elsewhere."""
        for site in ("cross-site", "same-site", "none"):
            with self.subTest(site):
                self.assert_refused(self.post("pause", f"Sec-Fetch-Site: {site}"))
        self.assertEqual(self.post("pause", "Sec-Fetch-Site: same-origin").status, 303)

    def test_odd_origin(self) -> None:
        """An origin that is no origin is refused, and no failure is logged."""
        for origin in (
            b"http://[",
            b"http://\xff",
            b"http://localhost\r\nOrigin: http://localhost",
        ):
            visit = Visit(self.site)
            head = b"POST /ops/do/pause HTTP/1.1\r\nHost: localhost\r\nOrigin: %s\r\n\r\n"
            visit.channel.dataReceived(head % origin)
            self.clock.advance(0)
            self.assertEqual(visit.answer().status, 403)

    def test_other_bodies(self) -> None:
        """An order is a form with few fields, and nothing else."""
        here, length = f"Origin: {HERE}", "Content-Length: 1"
        for kind in ("multipart/form-data; boundary=b", "text/plain", f"{FORM.decode()}; x=y"):
            visit = Visit(self.site)
            visit.ask("POST /ops/do/pause", here, f"Content-Type: {kind}", length)
            visit.channel.dataReceived(b"x")
            self.clock.advance(0)
            self.assertEqual(visit.answer().status, 415)
        body = b"&".join(b"a=1" for _ in range(MAX_FIELDS + 1))
        self.assertEqual(self.send("POST /ops/do/pause", here, body=body).status, 415)

    def test_get(self) -> None:
        """No GET changes anything."""
        token = self.token()
        for order in ORDERS:
            answer = self.get(f"/ops/do/{order}?token={token}&ids=120&job=120", f"Origin: {HERE}")
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "POST"))
        for path in PATHS:
            self.get(path)
        self.assertEqual(self.operations.orders, [])

    def test_token_of_start(self) -> None:
        """Each start has a token of its own."""
        before = self.token()
        self.site = self.make_site(self.settings)
        self.assertNotEqual(self.token(), before)


class ReadOnlyTests(VisitCase):
    def test_no_forms(self) -> None:
        """Without --web-actions no page has a form that changes something, nor a token."""
        for path in PATHS:
            outline = Outline(self.get(path).text)
            self.assertEqual([each for each in outline.all("form") if each["method"] != "get"], [])
            self.assertFalse([each for each in outline.all("input") if each["name"] == "token"])

    def test_refused(self) -> None:
        """Nor is an order carried out."""
        for order in ORDERS:
            answer = self.send(f"POST /do/{order}", f"Origin: {HERE}", body=b"token=&ids=120")
            self.assertEqual(answer.status, 403)
        self.assertEqual(self.operations.orders, [])
        self.assertEqual(self.get("/outcomes/x").status, 404)
