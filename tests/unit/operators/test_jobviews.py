"""The documents about jobs, and operators' cancels, of a dispatcher with clients and workers."""

from __future__ import annotations

import json
from typing import Any

from dangad.errors import NotFound
from dangad.operators.jobviews import (
    CANCELLED_AT_ONCE,
    LAST_LINES,
    LONGEST_LINE,
    MOST_TRACEBACK,
    JobViews,
    split_output,
)
from dangad.operators.parts import Parts
from dangad.wire.values import Priority
from tests.fakes import catalogue
from tests.unit.host.test_turns import TurnClock
from tests.unit.scheduler.dispatching import DispatcherTestCase

LINES = [f"line {number}" for number in range(LAST_LINES + 5)]
TRACEBACK = ["Echo failed:", "Traceback (most recent call last):", "ValueError: no"]
OUTPUT: tuple[tuple[list[str], list[str], str | None], ...] = (
    ([], [], None),
    (LINES, LINES[5:], None),
    (["x" * 500], ["x" * LONGEST_LINE], None),
    ([*LINES, *TRACEBACK], LINES[5:], "\n".join(TRACEBACK[1:])),
    (["Other failed:", "it says"], ["Other failed:", "it says"], None),
    # What the job itself prints in this form does not hide the traceback, which comes last.
    ([*TRACEBACK, *TRACEBACK], TRACEBACK, "\n".join(TRACEBACK[1:])),
    (["Echo failed:", *["y" * 500] * 20], [], "\n".join(["y" * 500] * 20)[-MOST_TRACEBACK:]),
)
"""What the worker of a job has printed, and the job's last lines and traceback in it."""


class JobViewsCase(DispatcherTestCase):
    """Views of the jobs of a dispatcher, whose clock has turns."""

    performs = catalogue("Echo", "Other", Limited={"max_running": 1, "retries": 1})

    def begin_anew(self) -> None:
        """Have views of the new dispatcher."""
        super().begin_anew()
        self.serve_views(TurnClock())

    def serve_views(self, clock: TurnClock) -> None:
        """Have another dispatcher, with this clock."""
        self.clock = self.turns = clock
        self.serve()
        self.printed: dict[int, list[str]] = {}
        self.views = JobViews(
            clock, self.dispatcher, Parts(clock), lambda number: self.printed.get(number, [])
        )
        clock.advance(1000)

    def document(self, waiter: Any) -> Any:
        """What the Deferred fires with, as soon as all parts are done."""
        results: list[Any] = []
        waiter.addBoth(results.append)
        for _ in range(1000):
            if results:
                break
            self.turns.turn()
        return results[0]

    def listed(self, sort: str = "-age", limit: int = 100, offset: int = 0, **given: Any) -> Any:
        """The document of the jobs that are meant."""
        return self.document(self.views.jobs(given, sort, limit, offset))

    def ids(self, *arguments: Any, **given: Any) -> list[int]:
        """The ids in that document."""
        return [entry["id"] for entry in self.listed(*arguments, **given)["jobs"]]


class JobsTests(JobViewsCase):
    def some_jobs(self) -> None:
        """One job runs, and four wait, of two clients."""
        self.alice, self.bob = self.connect("process 9 of alice"), self.connect("10.0.0.1:77")
        self.worker = self.ready()
        self.worker.can_prefetch = False
        self.running = self.submit(self.alice)
        self.clock.advance(1)
        self.waiting = [
            self.submit(self.alice, "Other", deadline=60.0),
            self.submit(self.bob, "Other", Priority.HIGH),
            self.submit(self.bob, "Echo", Priority.LOW),
            self.submit(self.alice, "Echo"),
        ]
        self.clock.advance(4)
        self.all = [self.running.id, *(job.id for job in self.waiting)]

    def test_default_order(self) -> None:
        """Jobs that run come first, though older ones wait; then the oldest that waits."""
        old = [self.submit(self.connect("a"), "Other", deadline=60.0) for _ in range(2)]
        self.clock.advance(1)
        self.dispatcher.pause([b"Other"])
        self.ready()
        young = self.submit(self.connect("b"))
        found = self.document(self.views.jobs({}, "state", 100, 0))["jobs"]
        self.assertEqual([each["id"] for each in found], [young.id, old[0].id, old[1].id])

    def test_entries(self) -> None:
        """An entry says who waits for what, since when, and who runs what."""
        self.some_jobs()
        document = self.listed()
        self.assertEqual(document["total"], 5)
        json.dumps(document)
        first, second = document["jobs"][:2]
        self.assertAlmostEqual(first.pop("runtime"), 5, places=2)
        self.assertEqual(
            first,
            {
                "id": self.running.id,
                "command": "Echo",
                "client": "process 9 of alice",
                "priority": "normal",
                "state": "running",
                "wait": 0.0,
                "attempt": 1,
                "deadline_left": None,
                "worker": self.worker.pid,
                "paused": False,
            },
        )
        self.assertAlmostEqual(second.pop("wait"), 4, places=2)
        self.assertAlmostEqual(second.pop("deadline_left"), 56, places=2)
        self.assertEqual(
            second,
            {
                "id": self.waiting[0].id,
                "command": "Other",
                "client": "process 9 of alice",
                "priority": "normal",
                "state": "queued",
                "runtime": None,
                "attempt": 0,
                "worker": None,
                "paused": False,
            },
        )

    def test_filters(self) -> None:
        """A list has the jobs that are meant, and how many they are."""
        self.some_jobs()
        _, other, high, low, echo = self.all
        self.assertEqual(self.ids(state="queued"), self.all[1:])
        self.assertEqual(self.ids(state="running"), self.all[:1])
        self.assertEqual(self.ids(command="Other"), [other, high])
        self.assertEqual(self.ids(client="10.0."), [high, low])
        self.assertEqual(self.ids(older_than=4.5), self.all[:1])
        self.assertEqual(self.ids(command="Echo", client="alice", state="queued"), [echo])
        self.assertEqual(self.listed(client="nobody"), {"total": 0, "jobs": []})

    def test_orders_and_pages(self) -> None:
        """The list has any order, and can be read page by page."""
        self.some_jobs()
        run, other, high, low, echo = self.all
        self.assertEqual(self.ids("priority"), [high, run, other, echo, low])
        self.assertEqual(self.ids("-priority"), [low, run, other, echo, high])
        self.assertEqual(self.ids("-runtime")[0], run)
        self.assertEqual(self.ids("wait")[0], run)
        self.assertEqual(self.ids("age")[-1], run)
        self.assertEqual(self.ids("command"), [run, low, echo, other, high])
        self.assertEqual(self.ids("client"), [high, low, run, other, echo])
        pages = [self.ids("-age", 2, offset) for offset in (0, 2, 4, 6)]
        self.assertEqual(pages, [[run, other], [high, low], [echo], []])
        self.assertEqual(self.listed("-age", 2)["total"], 5)

    def test_not_valid(self) -> None:
        """What is not valid is said at once, whatever the kind."""
        for call in (
            lambda: self.views.jobs({"stat": "x"}, "-age", 1, 0),
            lambda: self.views.jobs({}, "size", 1, 0),
            lambda: self.views.jobs({}, "age", 0, 0),
            lambda: self.views.recent({"state": "queued"}, None, 1),
            lambda: self.views.recent({}, "age", 1),
            lambda: self.views.cancel({}, 1000),
            lambda: self.views.cancel([], 1000),
            lambda: self.views.cancel(range(1001), 1000),
            lambda: self.views.cancel({"state": "done"}, 1000),
        ):
            with self.assertRaises(ValueError):
                call()

    def test_paused(self) -> None:
        """A job that waits says whether its command is paused."""
        self.some_jobs()
        self.dispatcher.pause([b"Other"])
        shown = {entry["id"]: entry["paused"] for entry in self.listed()["jobs"]}
        self.assertEqual([shown[each] for each in self.all], [False, True, True, False, False])

    def test_prefetched(self) -> None:
        """Operators do not hear of prefetched jobs: these wait."""
        client = self.connect("client")
        self.ready()
        for _ in range(20):  # quick ones, until some are prefetched
            self.submit(client)
        entries = self.listed()["jobs"]
        self.assertEqual([entry["state"] for entry in entries], ["running"] + ["queued"] * 19)
        self.assertEqual([entry["worker"] is None for entry in entries], [False] + [True] * 19)

    def test_ended_meanwhile(self) -> None:
        """A job that ends while the list is made is not in it."""
        self.some_jobs()
        waiter = self.views.jobs({}, "-age", 100, 0)
        self.turns.turn()
        self.dispatcher.cancel(self.waiting[0])
        document = self.document(waiter)
        self.assertNotIn(self.waiting[0].id, [entry["id"] for entry in document["jobs"]])


class RecentTests(JobViewsCase):
    def test_filters_and_orders(self) -> None:
        """The last jobs are there by their ends, or in an order, and as they are meant."""
        client, other = self.connect("client"), self.connect("other")
        worker = self.ready()
        jobs = []
        for asker, seconds, failed in ((client, 3, False), (other, 1, True), (client, 2, False)):
            jobs.append(self.submit(asker))
            self.clock.advance(seconds)
            self.answer(worker, failed=failed)
        cancelled = self.submit(client)
        self.submit(client)
        self.dispatcher.client_gone(client)
        first, second, third = (job.id for job in jobs)

        def ids(sort: str | None = None, limit: int = 1000, **given: Any) -> list[int]:
            return [entry["id"] for entry in self.views.recent(given, sort, limit)]

        self.assertEqual(ids()[:3], [first, second, third])
        self.assertEqual(ids(state="done"), [first, third])
        self.assertEqual(ids(state="done", limit=1), [third])
        self.assertEqual(ids("runtime", 2, state="done"), [third, first])
        self.assertEqual(ids("-runtime")[0], first)
        self.assertEqual(ids(outcome="UNKNOWN"), [second])
        self.assertEqual(ids(client="other"), [second])
        self.assertEqual(ids(older_than=3), [first])
        self.assertEqual(ids("error")[-2:], [first, third])  # what has no value comes last
        self.assertIn(cancelled.id, (job.id for job in self.dispatcher.jobs_running()))
        json.dumps(self.views.recent({}, None, 1000))


class JobTests(JobViewsCase):
    def detail(self, job_id: int) -> Any:
        """Everything about a job."""
        return self.document(self.views.job(job_id))

    def test_life(self) -> None:
        """A job can be looked at while it waits, while it runs, and after its end."""
        client = self.connect("client")
        job = self.submit(client, deadline=60.0)
        waits = self.detail(job.id)
        self.assertEqual(
            (waits["state"], waits["started"], waits["ended"], waits["can_run_again"]),
            ("queued", None, None, True),
        )
        self.clock.advance(2)
        worker = self.ready()
        self.printed[job.id] = ["hello"]
        runs = self.detail(job.id)
        self.assertEqual((runs["state"], runs["output"]), ("running", ["hello"]))
        self.assertAlmostEqual(runs["started"] - runs["accepted"], 2, places=1)
        self.clock.advance(3)
        self.printed[job.id] += TRACEBACK
        self.answer(worker, failed=True)
        ended = self.detail(job.id)
        self.assertEqual(
            (ended["state"], ended["traceback"], ended["can_run_again"], ended["deadline"]),
            ("failed", "\n".join(TRACEBACK[1:]), False, 60.0),
        )
        self.assertAlmostEqual(ended["ended"] - ended["accepted"], 5, places=1)
        json.dumps([waits, runs, ended])

    def test_attempts(self) -> None:
        """Earlier attempts are told with their workers, and why they ended."""
        client, worker = self.connect("client"), self.ready()
        job = self.submit(client, "Limited")
        self.die(worker)
        [attempt] = self.detail(job.id)["attempts"]
        self.assertEqual(attempt["worker"], worker.pid)
        self.assertIn("was killed by SIGKILL", attempt["ended_for"])
        self.dispatcher.client_gone(client)
        self.clock.advance(60)

    def test_unknown(self) -> None:
        """A job that never was is not found, and one that is forgotten neither."""
        failure = self.detail(99)
        failure.trap(NotFound)
        self.assertIn("no job 99 waits, runs", failure.getErrorMessage())

    def test_output(self) -> None:
        """The traceback is told from the output before it; both are bounded."""
        for lines, output, traceback in OUTPUT:
            self.assertEqual(split_output(lines, "Echo"), (output, traceback))

    def test_find_live(self) -> None:
        """A job that waits or runs is found, and one that has ended is not."""
        worker = self.ready()
        jobs = [self.submit(self.client("x")) for _ in range(2)]
        for job in jobs:
            self.assertIs(self.document(self.views.find_live(job.id)), job)
        self.answer(worker)
        self.document(self.views.find_live(jobs[0].id)).trap(NotFound)
        self.answer(worker)


class CancelTests(JobViewsCase):
    def cancel(self, which: Any, most: int = 1000) -> Any:
        """What comes of an order to cancel."""
        return self.document(self.views.cancel(which, most))

    def test_by_ids(self) -> None:
        """Each id has its result, in the order of the ids."""
        client, worker = self.connect("client"), self.ready()
        worker.can_prefetch = False
        ended = self.submit(client)
        self.answer(worker)
        running, waiting = self.submit(client), self.submit(client, "Other")
        document = self.cancel([waiting.id, ended.id, 99, running.id, waiting.id])
        results = [(each["id"], each["command"], each["result"]) for each in document["results"]]
        self.assertEqual(
            results,
            [
                (waiting.id, "Other", "cancelled"),
                (ended.id, "Echo", "ended"),
                (99, None, "not found"),
                (running.id, "Echo", "stopping"),
            ],
        )
        self.assertEqual((document["matched"], document["left"]), (3, 0))
        self.assertIn("CANCELLED", client.failure_of(waiting))
        self.die(worker)
        self.assertEqual(self.dispatcher.running, 0)

    def test_by_filter(self) -> None:
        """The oldest of the jobs that are meant are cancelled, and it is told how many are left."""
        client = self.connect("client")
        jobs = [self.submit(client, ("Echo", "Other")[number % 2]) for number in range(10)]
        document = self.cancel({"command": "Other"}, 3)
        others = [job.id for job in jobs if job.command == b"Other"]
        self.assertEqual([each["id"] for each in document["results"]], others[:3])
        self.assertEqual((document["matched"], document["left"]), (5, 2))
        self.assertEqual(self.dispatcher.waiting, 7)
        self.assertEqual(self.cancel({"command": "None"}), {"matched": 0, "results": [], "left": 0})

    def test_in_parts(self) -> None:
        """Of many jobs, some are cancelled in each turn; those that end before are passed over."""
        self.dispatcher.admission.max_queued = 1000
        client = self.connect("client")
        jobs = [self.submit(client) for _ in range(5 * CANCELLED_AT_ONCE)]
        waiter = self.views.cancel({"command": "Echo"}, 1000)
        while self.dispatcher.waiting == len(jobs):
            self.turns.turn()
        self.assertEqual(self.dispatcher.waiting, len(jobs) - CANCELLED_AT_ONCE)
        self.dispatcher.cancel(jobs[-1])
        results = self.document(waiter)["results"]
        self.assertEqual(results[-1]["result"], "ended")
        self.assertEqual({each["result"] for each in results[:-1]}, {"cancelled"})
        self.assertEqual(self.dispatcher.waiting, 0)
