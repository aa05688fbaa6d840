"""What the pages show, and that nothing in them is markup but their own."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from twisted.web.template import flattenString

from dangad.web.settings import WebSettings
from dangad.web.timeline import timeline
from tests.unit.web.busyoperations import BusyOperations, command, ended, window
from tests.unit.web.visits import VisitCase

PATHS = (
    "/",
    "/jobs",
    "/jobs?state=ended",
    "/jobs/120",
    "/jobs/121",
    "/jobs/100",
    "/commands",
    "/commands/Thumbnail",
    "/commands/%3Cscript%3Ealert%28%22x%22%29%3C%2Fscript%3E%26amp%3B%E2%80%AE",
    "/workers",
    "/clients",
    "/calls",
    "/calls/140",
    "/calls/139",
    "/calls/138",
)


class Outline(HTMLParser):
    """The tags of a page, and the attributes of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all tags of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


class EscapingTests(VisitCase):
    settings = WebSettings("unix:web.sock", actions=True)

    def test_text(self) -> None:
        """Names, errors and output that look like markup are text, and turn no line around."""
        for path in PATHS:
            with self.subTest(path):
                answer = self.get(path)
                self.assertEqual(answer.status, 200)
                outline = Outline(answer.text)
                for script in outline.all("script"):
                    self.assertTrue((script["src"] or "").startswith("/static/"))
                self.assertNotIn("<script>", answer.text)
                typed = re.compile("<textarea.*?</textarea>", re.DOTALL)  # is kept as it is
                visible = re.sub("<[^>]*>", "", typed.sub("", answer.text))
                self.assertNotIn("\u202e", visible)
        self.assertIn("&lt;script&gt;alert", self.get("/clients").text)

    def test_policy(self) -> None:
        """No page needs more than its Content-Security-Policy: nothing is inline."""
        for path in PATHS:
            with self.subTest(path):
                outline = Outline(self.get(path).text)
                for tag, attributes in outline.tags:
                    self.assertNotEqual(tag, "style")
                    for name in attributes:
                        self.assertFalse(name == "style" or name.startswith("on"), (tag, name))

    def test_structure(self) -> None:
        """Each page has one heading, landmarks, and heads for columns and rows; ids are unique."""
        for path in PATHS:
            with self.subTest(path):
                outline = Outline(self.get(path).text)
                for tag in ("h1", "main", "header", "footer"):
                    self.assertEqual(len(outline.all(tag)), 1)
                for head in outline.all("th"):
                    self.assertIn(head["scope"], ("col", "row"))
                ids = [each["id"] for _, each in outline.tags if "id" in each]
                self.assertEqual(len(ids), len(set(ids)))
                self.assertEqual(outline.all("html"), [{"lang": "en"}])
                for field in outline.all("input"):
                    self.assertIn(field.get("type"), ("hidden", "text", "number", "checkbox"))


class OverviewTests(VisitCase):
    def test_gauges(self) -> None:
        """The numbers that matter are there without JavaScript."""
        text = self.get("/").text
        for shown in ("214", "4.2 s", "30 ms", "BAD_IMAGE", "WORKER_LOST", "4711", "Thumbnail"):
            self.assertIn(shown, text)

    def test_health(self) -> None:
        """What is wrong is said first."""
        self.assertIn("Thumbnail is quarantined", self.get("/").text)
        self.operations.status_document["no_workers"] = "the job modules cannot be imported"
        self.assertIn("cannot start workers: the job modules", self.get("/").text)

    def banner(self, **changes: Any) -> str:
        """What the first line says of a server with nothing wrong but for the changes."""
        status = self.operations.status_document
        self.operations.status_document = {**status, "quarantine": [], **changes}
        found = re.search('id="health".*?>(.*?)</p>', self.get("/").text, re.DOTALL)
        self.operations.status_document = status
        assert found is not None
        return re.sub("<[^>]*>", "", found[1])

    def test_banner(self) -> None:
        """Everything works only if the server is healthy, and refuses nothing."""
        self.site = self.make_site(WebSettings("unix:web.sock", health_oldest=60.0))
        self.assertIn("Everything works", self.banner())
        self.assertIn("longer than 1.0 min", old := self.banner(oldest_wait=90.0))
        jobs = {**self.operations.status_document["jobs"], "waiting": 2000, "max_queued": 2000}
        self.assertIn("queue is full: 2,000 of 2,000 jobs wait", full := self.banner(jobs=jobs))
        last = {"1m": {**window(3, 0, 0.1), "refused_by_code": {"QUEUE_FULL": 1500}}}
        last = {**self.operations.status_document["last"], **last}
        self.assertIn("in the last minute: 1,500 QUEUE_FULL", refused := self.banner(last=last))
        for said in (old, full, refused, self.banner(state="draining")):
            self.assertNotIn("Everything works", said)

    def test_refused(self) -> None:
        """Refused requests have a number of their own, and no link to jobs."""
        text = self.get("/").text
        self.assertRegex(text, 'id="gauge-refused".*\n?.*3 in all')
        self.assertIn('outcome=BAD_IMAGE"', text)
        self.assertNotIn("outcome=QUEUE_FULL", text)

    def test_lost(self) -> None:
        """Of a lost job's reason a list has the first sentence, and the title the rest."""
        error = "WORKER_LOST: worker 4709 was killed by SIGSEGV; its last output: at the end"
        self.operations.recent_document = [ended(101, state="lost", error=error)]
        for path in ("/", "/jobs?state=ended"):
            text = self.get(path).text
            self.assertIn(f'title="{error}"', text)
            self.assertIn("killed by SIGSEGV…<", text)

    def test_bounded(self) -> None:
        """A thousand workers, commands and failures are not all shown."""
        worker = self.operations.workers_document[0]
        self.operations.workers_document = [{**worker, "pid": pid} for pid in range(1000, 2000)]
        self.operations.commands_document = [command(f"Name{each}") for each in range(1000)]
        self.operations.recent_document = [ended(each, state="failed") for each in range(1000)]
        answer = self.get("/")
        self.assertLess(len(answer.body), 60_000)
        self.assertIn("936 more workers", answer.text)
        self.assertIn("All 1000 commands", answer.text)


class TurnsTests(VisitCase):
    def test_turns(self) -> None:
        """A long page is written in many turns of the reactor, so that others have theirs."""
        turns: list[float] = []
        later = self.clock.callLater

        def count(delay: float, *rest: Any, **more: Any) -> Any:
            if not delay:
                turns.append(delay)
            return later(delay, *rest, **more)

        self.clock.callLater = count  # type: ignore[method-assign]
        for path, least in (("/jobs/120", 0), ("/jobs", 9), ("/", 5), ("/metrics", 20)):
            turns.clear()
            self.assertEqual(self.get(path).status, 200)
            self.assertGreaterEqual(len(turns), least, path)


class JobsTests(VisitCase):
    def test_filters(self) -> None:
        """The address is the filter, and the form shows it."""
        query = "state=queued&command=Thumbnail&client=user+1000&older_than=5m&sort=-wait&page=2"
        text = self.get(f"/jobs?{query}").text
        wanted = {
            "state": "queued",
            "command": "Thumbnail",
            "client": "user 1000",
            "older_than": 300.0,
        }
        self.assertEqual(self.operations.asked, [("jobs", wanted, "-wait", 100, 100)])
        outline = Outline(text)
        values = {each.get("name"): each.get("value") for each in outline.all("input")}
        self.assertEqual(values["older_than"], "5m")
        self.assertEqual(values["sort"], "-wait")
        [chosen] = [each for each in outline.all("option") if "selected" in each]
        self.assertEqual(chosen["value"], "queued")
        [stream] = [each for each in outline.all("div") if each.get("id") == "live"]
        self.assertEqual(
            stream["hx-sse:connect"],
            "/live/jobs?state=queued&command=Thumbnail&client=user+1000&older_than=5m"
            "&sort=-wait&page=2",
        )

    def test_parts(self) -> None:
        """A long list comes in parts, and each leads to its neighbours."""
        text = self.get("/jobs?page=2").text
        self.assertIn("202 jobs, part 2 of 3", text)
        links = {each.get("rel"): each["href"] for each in Outline(text).all("a")}
        self.assertEqual((links["prev"], links["next"]), ("/jobs", "/jobs?page=3"))
        self.assertEqual(text.count('id="job-'), 100)

    def test_ended(self) -> None:
        """Jobs that have ended are listed with the reason, the latest first."""
        text = self.get("/jobs?state=failed&outcome=BAD_IMAGE").text
        self.assertEqual(
            self.operations.asked,
            [("recent", {"outcome": "BAD_IMAGE", "state": "failed"}, None, 1000)],
        )
        self.assertLess(text.index("job-102"), text.index("job-100"))

    def test_not_valid(self) -> None:
        """An address that is not valid is answered with what would be."""
        cases = {
            "state=asleep": "none of queued, running, ended",
            "older_than=soon": "no time like 90, 5m or 1.5h",
            "sort=colour": "none of age, wait",
            "page=0": "not a whole number from 1",
            "page=99999999": "not a whole number from 1",
            "outcome=X": "choose such a state",
            f"command={'x' * 300}": "longer than 200 characters",
        }
        for query, says in cases.items():
            with self.subTest(query):
                answer = self.get(f"/jobs?{query}")
                self.assertEqual(answer.status, 400)
                self.assertIn(says, answer.text)

    def test_one(self) -> None:
        """A job's page tells its life."""
        text = self.get("/jobs/120").text
        for shown in ("running", "process 5120", "waited 2.0 s", "ran attempt 2:", "WORKER_LOST"):
            self.assertIn(shown, text)

    def test_gone(self) -> None:
        """A job that is not known is not found, whatever its number."""
        for number in ("7", "x", "-1", "9" * 40, "1%2F2"):
            with self.subTest(number):
                self.assertEqual(self.get(f"/jobs/{number}").status, 404)


class OtherTests(VisitCase):
    def test_commands(self) -> None:
        """A thousand commands come in parts."""
        self.operations.commands_document = [command(f"Name{each:03}") for each in range(1000)]
        text = self.get("/commands?page=3").text
        self.assertIn("Name299", text)
        self.assertNotIn("Name300", text)

    def test_unknown_command(self) -> None:
        """A command that is not known is not found."""
        self.assertEqual(self.get("/commands/Nothing").status, 404)

    def test_deaths(self) -> None:
        """Workers that died are listed with the reason, the latest first."""
        text = self.get("/workers").text
        self.assertLess(text.index("has done 1,000 jobs"), text.index("killed by SIGSEGV"))

    def test_end_of_worker(self) -> None:
        """The life of a job says where each of its workers died."""
        found = {
            "state": "lost",
            "worker": 4712,
            "accepted": 10.0,
            "started": 14.0,
            "ended": 15.0,
            "attempts": [{"started": 11.0, "worker": 4709, "ended_for": "WORKER_LOST"}],
        }
        text = self.successResultOf(flattenString(None, timeline(found))).decode()
        kinds = re.findall('<li class="([a-z]+)">([^<]*)', text)
        self.assertEqual([kind for kind, _ in kinds], ["waited", "ran", "died", "ran", "died"])
        self.assertEqual([said for kind, said in kinds if kind == "died"][1], "died: worker 4712")

    def test_job_of_death(self) -> None:
        """A death has a link to the job that the worker ran."""
        self.assertIn('href="/jobs/101"', self.get("/workers").text)

    def test_clients(self) -> None:
        """Whoever does not read is marked."""
        self.assertIn("does not read", self.get("/clients").text)

    def test_empty(self) -> None:
        """A server that has done nothing yet has pages, too."""
        self.operations = BusyOperations(self.clock)
        for name in ("workers", "commands", "recent", "deaths"):
            setattr(self.operations, f"{name}_document", [])
        self.operations.entries = []
        self.operations.clients_document = {"total": 0, "clients": []}
        nothing = window(0, 0, None)
        self.operations.status_document |= {
            "oldest_wait": None,
            "last": dict.fromkeys(("1m", "5m", "15m"), nothing),
            "failed_by_code": {},
            "refused_by_code": {},
            "quarantine": [],
            "deaths": {},
        }
        self.site = self.make_site(self.settings)
        for path in ("/", "/jobs", "/jobs?state=ended", "/commands", "/workers", "/clients"):
            with self.subTest(path):
                self.assertEqual(self.get(path).status, 200)
        self.assertIn("Everything works", self.get("/").text)
