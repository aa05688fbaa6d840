"""Pages that are kept up to date: one rendering for all, nothing for nobody, and bounds."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from dangad.web.live import MAX_STREAMS, MAX_VIEWERS, QUIET_ROUNDS, SLOW_ROUNDS, Update
from tests.unit.web.visits import Visit, VisitCase

if TYPE_CHECKING:
    from twisted.web.server import Request


class Looking:
    """The request of a page that is open, and takes everything."""

    def __init__(self) -> None:
        #: Fires when the page is closed.
        self.finished: Deferred[Any] = Deferred()

    def notifyFinish(self) -> Deferred[Any]:
        """When the page is closed."""
        return self.finished

    def setHeader(self, *_: object) -> None:
        """Take a header."""

    def registerProducer(self, *_: object) -> None:
        """Take the producer."""

    def write(self, data: bytes) -> None:
        """Take bytes."""


class LiveTests(VisitCase):
    def setUp(self) -> None:
        """Make the page."""
        super().setUp()
        #: The renderings of `look`: the page, and when.
        self.asked: list[tuple[str, float]] = []

    def watch(self, path: str = "/live/workers") -> Visit:
        """A page that is open."""
        visit = Visit(self.site)
        visit.ask(f"GET {path}")
        return visit

    def pass_seconds(self, number: int) -> None:
        """Let time pass, with turns enough for each second."""
        for _ in range(number):
            self.clock.advance(1)
            for _ in range(20):
                self.clock.advance(0)

    def written(self, visit: Visit) -> str:
        """What was written since this was asked before."""
        text: str = visit.transport.value().decode()
        visit.transport.clear()
        return text

    def count_renderings(self) -> list[str]:
        """Note each question for the deaths of workers, which one view alone asks."""
        asked: list[str] = []
        deaths = self.operations.deaths

        def note() -> Any:
            asked.append("deaths")
            return deaths()

        self.operations.deaths = note  # type: ignore[method-assign]
        return asked

    def test_changes(self) -> None:
        """A viewer is sent the part that changes, each second in which it has changed."""
        visit = self.watch()
        self.assertIn("text/event-stream", self.written(visit))
        self.pass_seconds(1)
        first = self.written(visit)
        self.assertIn("data: <p", first)
        self.assertNotIn("<html", first)
        self.pass_seconds(3)
        self.assertEqual(self.written(visit), "")
        worker = {**self.operations.workers_document[1], "pid": 4999}
        self.operations.workers_document = [worker]
        self.pass_seconds(1)
        second = self.written(visit)
        self.assertIn("4999", second)
        self.assertNotIn("4711</th>", second)

    def test_sample(self) -> None:
        """The overview is sent the latest sample, too, for the curves."""
        visit = self.watch("/live/")
        self.pass_seconds(2)
        text = self.written(visit)
        self.assertIn('event: sample\ndata: {"time"', text)

    def test_filter(self) -> None:
        """A list is kept up to date with its own filter."""
        self.watch("/live/jobs?state=queued&command=Thumbnail&page=2")
        self.pass_seconds(1)
        wanted = {"command": "Thumbnail", "state": "queued"}
        self.assertIn(("jobs", wanted, "state", 100, 100), self.operations.asked)

    def test_shared(self) -> None:
        """Viewers of the same address share one rendering a second."""
        asked = self.count_renderings()
        visits = [self.watch() for _ in range(10)]
        self.pass_seconds(5)
        self.assertEqual(len(asked), 5)
        self.assertEqual(len({visit.transport.value()[-500:] for visit in visits}), 1)

    def look(self, name: str, takes: float) -> Deferred[Any]:
        """Open a page whose rendering takes that long; the Deferred closes it."""
        request = Looking()

        async def render() -> Update:
            self.asked.append((name, self.clock.seconds()))
            await deferLater(self.clock, takes)
            return Update(b"")

        self.assertTrue(self.site.live.watch(cast("Request", request), name, render))
        return request.finished

    def test_one_chain(self) -> None:
        """However often a page is opened and closed during a round, rounds do not multiply."""
        page = self.look("a", 0.02)
        for _ in range(5):
            self.clock.advance(1)
            self.clock.advance(0.01)
            page.callback(None)
            page = self.look("a", 0.02)
            self.clock.pump([0.01] * 10)
        self.asked.clear()
        self.clock.pump([0.01] * 1050)
        self.assertIn(len(self.asked), (9, 10))
        page.callback(None)
        self.asked.clear()
        self.clock.pump([0.01] * 200)
        self.assertEqual(self.asked, [])

    def test_dear_page(self) -> None:
        """Where a page takes long, there is more time between its updates."""
        self.look("a", 0.4)
        self.clock.pump([0.1] * 150)
        pauses = [later - sooner for (_, sooner), (_, later) in pairwise(self.asked)]
        self.assertGreaterEqual(len(pauses), 2)
        self.assertGreater(min(pauses), 3.9)

    def test_budget(self) -> None:
        """A round ends after a while; the addresses that are left come first in the next one."""
        for name in "abc":
            self.look(name, 0.3)
        self.clock.pump([0.1] * 25)
        self.assertEqual("".join(name for name, _ in self.asked), "ab")
        self.clock.pump([0.1] * 65)
        self.assertEqual("".join(name for name, _ in self.asked), "abca")

    def test_addresses(self) -> None:
        """Few addresses are kept up to date at a time, however many viewers each has."""
        visits = [self.watch(f"/live/jobs?page={page}") for page in range(1, MAX_STREAMS + 1)]
        self.assertEqual(self.get("/live/workers").status, 503)
        self.assertIn("200 OK", self.written(self.watch("/live/jobs?page=2")))
        visits[0].channel.connectionLost()
        self.assertIn("200 OK", self.written(self.watch("/live/workers")))

    def test_nobody(self) -> None:
        """Nothing is rendered while nobody looks."""
        asked = self.count_renderings()
        visit = self.watch()
        self.pass_seconds(2)
        visit.channel.connectionLost()
        self.assertEqual(self.site.live.viewers, 0)
        self.pass_seconds(5)
        self.assertEqual(len(asked), 2)

    def test_most(self) -> None:
        """One page too many stays as it is; when one is closed, there is room again."""
        visits = [self.watch() for _ in range(MAX_VIEWERS)]
        refused = self.get("/live/workers")
        self.assertEqual(refused.status, 503)
        visits[0].channel.connectionLost()
        self.assertIn("200 OK", self.written(self.watch()))

    def test_slow(self) -> None:
        """A viewer that does not read is sent nothing, and is closed in the end."""
        slow, other = self.watch("/live/"), self.watch("/live/")
        self.pass_seconds(1)
        self.written(slow)
        assert slow.transport.producer is not None
        slow.transport.producer.pauseProducing()
        self.pass_seconds(SLOW_ROUNDS)
        self.assertEqual(self.written(slow), "")
        self.assertFalse(slow.aborted)
        self.pass_seconds(1)
        self.assertTrue(slow.aborted)
        self.assertIn("sample", self.written(other))

    def test_slow_for_a_moment(self) -> None:
        """A viewer that reads again is sent the latest, once."""
        visit = self.watch("/live/")
        self.pass_seconds(1)
        self.written(visit)
        producer: Any = visit.transport.producer
        producer.pauseProducing()
        self.pass_seconds(5)
        producer.resumeProducing()
        self.pass_seconds(1)
        self.assertEqual(self.written(visit).count("event: sample"), 1)

    def test_sign_of_life(self) -> None:
        """Where nothing changes, a viewer is told now and then that the server lives."""
        visit = self.watch()
        self.pass_seconds(1)
        self.written(visit)
        self.pass_seconds(QUIET_ROUNDS)
        self.assertIn(": nothing new\n\n", self.written(visit))

    def test_gone_job(self) -> None:
        """The page of a job that is forgotten says so."""
        visit = self.watch("/live/jobs/120")
        self.operations.entries = []
        self.pass_seconds(1)
        self.assertIn("no job 120 is known", self.written(visit))

    def test_failure(self) -> None:
        """A page that fails is logged, and the others go on."""
        broken, other = self.watch("/live/workers"), self.watch("/live/clients")
        self.operations.workers_document = [{}]
        self.pass_seconds(1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertIn("does not read", self.written(other))
        self.assertNotIn("data:", self.written(broken))

    def test_not_there(self) -> None:
        """What is no page cannot be watched."""
        self.assertEqual(self.get("/live/nothing").status, 404)
        self.assertEqual(self.get("/live/outcomes/x").status, 404)
        self.assertEqual(self.get("/live/jobs?page=x").status, 400)
