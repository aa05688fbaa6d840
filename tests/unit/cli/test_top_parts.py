"""What `dangad top` asks for, what it makes of the answers, and how it stays connected."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.amp import RemoteAmpError
from twisted.trial.unittest import SynchronousTestCase

from dangad.cli.tables import width as width_of
from dangad.cli.top import summary
from dangad.cli.top.filterline import read_filter
from dangad.cli.top.history import SPAN, Curve, History
from dangad.cli.top.news import Wish, first_wish, look
from dangad.cli.top.server import PATIENCE, Refused, Server, Unreachable
from dangad.cli.top.views import ENTRIES, PADDING, VIEWS, cells, fit, sort_entries
from dangad.client import Disconnected
from dangad.errors import NotRunning
from dangad.wire import commands
from dangad.wire.controlwords import LIVE_STATES
from tests.fakeoperations import COMMANDS, JOBS, RECENT, STATUS, WORKERS

if TYPE_CHECKING:
    from collections.abc import Coroutine

HOSTILE = "[red]x[/] [/]\x1b[2J\n\u202e"
"""The name of a peer that would like to be more."""
ESCAPED = r"[red]x[/] [/]\x1b[2J\n\u202e"
WORDS = ("command", "client", "state", "older-than")
LINES: tuple[tuple[str, Any], ...] = (
    ("", {}),
    ("command=Sleep", {"command": "Sleep"}),
    ("state=queued older-than=5m", {"state": "queued", "older_than": 300.0}),
    ("older_than=1.5", {"older_than": 1.5}),
    ("client='process 7'", {"client": "process 7"}),
    ("client=[red]", {"client": "[red]"}),
    ("client=a=b", {"client": "a=b"}),
    ("Sleep", "'Sleep': write command= client= state= older-than="),
    ("comand=x", "did you mean command?"),
    ("state=runing", "state= is queued or running or paused; did you mean running?"),
    ("older-than=soon", "is not a time"),
    ("command=a command=b", "command= is given twice"),
    ("client='a", "a quote is not closed"),
)
"""Lines, and what they mean, or what is wrong with them."""


def status(**numbers: Any) -> dict[str, Any]:
    """A status in which these numbers of jobs differ."""
    return {**STATUS, "jobs": {**STATUS["jobs"], **numbers}}


class FilterLineTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """A line has the words of the options of `dangad jobs`; a wrong one says what is right."""
        for line, expected in LINES:
            with self.subTest(line):
                if isinstance(expected, dict):
                    self.assertEqual(read_filter(line, WORDS, LIVE_STATES), expected)
                else:
                    with self.assertRaises(ValueError) as caught:
                        read_filter(line, WORDS, LIVE_STATES)
                    self.assertIn(expected, str(caught.exception))
                    self.assertTrue(str(caught.exception).isprintable())


class HistoryTests(SynchronousTestCase):
    def test_rate(self) -> None:
        """The throughput is what has ended since the last look, however long ago that was."""
        history = History()
        for now, done in ((10.0, 100), (11.0, 105), (15.0, 105), (15.5, 115)):
            history.add(status(done=done), now)
        self.assertEqual(history.rate, 20.0)
        self.assertEqual(history.throughput.largest, 20.0)
        self.assertEqual(history.throughput.draw(SPAN)[-7:], " ▃▁▁▁▁█")

    def test_restart(self) -> None:
        """A server that begins anew has no throughput from before."""
        history = History()
        history.add(status(done=100), 1.0)
        history.add(status(done=200), 2.0)
        history.add({**status(done=3), "pid": 1}, 3.0)
        self.assertIsNone(history.rate)
        history.add({**status(done=4), "pid": 1}, 4.0)
        self.assertEqual(history.rate, 1.0)

    def test_unknown_backlog(self) -> None:
        """While nobody looked, the backlog is not known."""
        history = History()
        history.add(status(waiting=5), 1.0)
        history.add(status(waiting=9), 5.0)
        self.assertEqual(history.backlog.draw(SPAN)[-5:], "▅   █")
        self.assertEqual(history.backlog.largest, 9)

    def test_bounds(self) -> None:
        """A curve has the width that it is given, and forgets what is older than its span."""
        curve = Curve()
        for width in (-1, 0, 1, 7, 50, SPAN, 2 * SPAN):
            self.assertEqual(curve.draw(width), " " * width)
        curve.add(1000)
        for number in range(3 * SPAN):
            curve.add(number % 10)
            for width in (1, 7, 50):
                self.assertEqual(len(curve.draw(width)), width)
        self.assertEqual(curve.largest, 9)

    def test_steady(self) -> None:
        """A column does not change while it moves to the left."""
        curve = Curve()
        for number in range(2 * SPAN):
            curve.add(9 if number % 30 < 3 else number % 4)
        before = curve.draw(50)
        for _ in range(6):  # the seconds of one column
            curve.add(0)
        self.assertEqual(curve.draw(50)[:-1], before[1:])


class ViewTests(SynchronousTestCase):
    def test_fit(self) -> None:
        """The columns of every view fit into every terminal, the most important ones first."""
        for name, view in VIEWS.items():
            ranked = sorted(view.columns, key=lambda each: each.worth)
            for width in (20, 40, 78, 100, 200):
                with self.subTest(name, width=width):
                    fitted = fit(view, width)
                    self.assertLessEqual(sum(size + PADDING for _, size in fitted), width)
                    chosen = [column for column, _ in fitted]
                    self.assertEqual(set(chosen), set(ranked[: len(chosen)]))
                    self.assertEqual(chosen, sorted(chosen, key=view.columns.index))
            self.assertEqual(len(fit(view, 200)), len(view.columns))

    def test_headers(self) -> None:
        """Each header has room for the mark of the sort order, and each order has its keys."""
        entries = {"jobs": JOBS["jobs"], "commands": COMMANDS, "recent": RECENT, "workers": []}
        for name, view in VIEWS.items():
            orders = [order.removeprefix("-") for order in view.orders]
            for column in view.columns:
                room = column.width - (column.key in orders)
                self.assertLessEqual(len(column.head), room, f"{name}: {column.head}")
            for entry in entries[name]:
                self.assertIn(view.identity, entry)

    def test_hostile(self) -> None:
        """What peers have named is text: neither markup nor control characters work in cells."""
        entry = {**JOBS["jobs"][0], "command": HOSTILE, "client": HOSTILE, "priority": HOSTILE}
        texts = cells(entry, [(column, 99) for column in VIEWS["jobs"].columns])
        self.assertEqual([text.plain for text in texts].count(ESCAPED), 3)
        self.assertFalse([text for text in texts if text.spans or not text.plain.isprintable()])

    def test_sort(self) -> None:
        """Entries without a value come last in any direction."""
        entries: list[dict[str, Any]] = [{"a": None}, {"a": 2}, {"a": 1}, {"a": 3}]
        for sort, expected in (("a", [1, 2, 3, None]), ("-a", [3, 2, 1, None])):
            self.assertEqual([each["a"] for each in sort_entries(entries, sort)], expected)


class SummaryTests(SynchronousTestCase):
    def test_tiles(self) -> None:
        """However many workers there are, the tiles stay in their lines, and count the others."""
        busy = WORKERS[0]
        longest = {**busy, "pid": 1, "job": {**busy["job"], "runtime": 99.0}}
        for number in (1, 5, 6, 7, 100):
            workers = [WORKERS[1]] * number + [longest]
            drawn = summary.tiles(workers, 80, 2).plain
            lines = drawn.split("\n")
            self.assertLessEqual(len(lines), 2)
            self.assertLessEqual(max(map(width_of, lines)), 80)
            self.assertIn("● 1 Thumbnail 1.6 min", lines[0])
            shown = number if number < 6 else 4
            self.assertEqual(drawn.count("○ 4712 idle"), shown)
            self.assertEqual(f"+ {number - shown} idle" in drawn, shown < number)

    def test_hostile_tiles(self) -> None:
        """A job's long, wide or evil name stays within its tile."""
        for name in (HOSTILE, "漢字" * 40, "x" * 400, ""):
            worker = {**WORKERS[0], "job": {**WORKERS[0]["job"], "command": name}}
            drawn = summary.tiles([worker, worker], 60, 2)
            self.assertLessEqual(max(map(width_of, drawn.plain.split("\n"))), 60)
            self.assertTrue(drawn.plain.replace("\n", "").isprintable())

    def test_head(self) -> None:
        """The head has the state, the backlog by priority, the oldest wait, and the last minute."""
        now = {
            **status(waiting=1234),
            "oldest_wait": 75.0,
            "backlog": {"high": 4, "normal": 1200, "low": 30},
        }
        drawn = summary.head(now).plain
        for fact in (
            "running",
            "up 3.2 h",
            "waiting 1,234",
            "4 high, 1,200 normal, 30 low",
            "oldest 1.2 min",
            "p50 210 ms",
            "p99 1.2 s",
        ):
            self.assertIn(fact, drawn)
        idle = {**STATUS["last"]["1m"], "jobs": 0, "p50": None, "p90": None, "p99": None}
        self.assertNotIn("p50", summary.head({**STATUS, "last": {"1m": idle}}).plain)

    def test_alerts(self) -> None:
        """What needs attention has a line each, and a server without trouble has none."""
        well = {**STATUS, "paused": {"all": False, "commands": []}, "quarantine": []}
        self.assertEqual(summary.alerts(well).plain, "")
        ill = {
            **STATUS,
            "no_workers": HOSTILE,
            "reload": {"state": "failed", "reason": "SyntaxError"},
        }
        lines = [line.strip() for line in summary.alerts(ill).plain.split("\n")]
        self.assertEqual(
            lines,
            [
                f"no workers: {ESCAPED}",
                "in quarantine: Thumbnail for 21.5 s",
                "reload failed: SyntaxError",
                "paused: Rotate",
            ],
        )


class NewsTests(SynchronousTestCase):
    def asked(self, wish: Wish) -> list[tuple[str, dict[str, Any]]]:
        """What is asked of the server for a wish."""
        asked: list[tuple[str, dict[str, Any]]] = []
        documents: dict[str, Any] = {
            "Status": STATUS,
            "Workers": WORKERS,
            "Jobs": JOBS,
            "Commands": COMMANDS,
            "Recent": RECENT,
        }

        async def ask(name: str, **arguments: Any) -> Any:
            asked.append((name, arguments))
            return documents[name]

        news = asyncio.run(look(ask, wish))
        self.assertLessEqual(len(news.entries), ENTRIES)
        self.assertEqual(asked[:2], [("Status", {}), ("Workers", {})])
        return asked[2:]

    def test_only_what_is_shown(self) -> None:
        """Of each view only its own entries are asked for, and not more than it shows."""
        page = {"limit": ENTRIES}
        self.assertEqual(self.asked(first_wish("jobs")), [("Jobs", {"sort": "state", **page})])
        wish = Wish("jobs", "client", {"command": "Echo"})
        self.assertEqual(
            self.asked(wish), [("Jobs", {"sort": "client", "command": "Echo", **page})]
        )
        self.assertEqual(self.asked(first_wish("workers")), [])
        self.assertEqual(self.asked(first_wish("commands")), [("Commands", {})])

    def test_failures(self) -> None:
        """Failures are asked for by their states: those that ended well do not hide them."""
        asked = self.asked(first_wish("recent"))
        self.assertEqual([each["state"] for _, each in asked], ["failed", "timed out", "lost"])
        for wish in (
            Wish("recent", "-ended", everything=True),
            Wish("recent", "-ended", {"outcome": "NOT_FOUND"}),
        ):
            [(_, arguments)] = self.asked(wish)
            self.assertNotIn("state", arguments)


class FakeClient:
    """A connection whose answers a test gives."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.answers: list[Deferred[dict[str, Any]]] = []
        self.closed = False

    def run(self, command: Any, arguments: dict[str, Any]) -> Deferred[dict[str, Any]]:
        """An answer that the test fires."""
        self.asked.append((command, arguments))
        self.answers.append(Deferred())
        return self.answers[-1]

    def close(self) -> Deferred[None]:
        """Note it."""
        self.closed = True
        return defer.succeed(None)


class ServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Have a server that answers as the test says."""
        super().setUp()
        self.clock = Clock()
        self.clients: list[FakeClient] = []
        self.failures: list[Exception] = []

    def connect(self) -> Deferred[Any]:
        """A new connection, or the next failure."""
        if self.failures:
            return defer.fail(self.failures.pop())
        self.clients.append(FakeClient())
        return defer.succeed(self.clients[-1])

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        """Run a test in asyncio."""
        asyncio.run(asyncio.wait_for(story, 20))

    def server(self) -> Server:
        """The server under test."""
        return Server(cast("Any", self.clock), self.connect, str)

    async def answering(self, server: Server, name: str, answer: Any) -> Any:
        """The result of a question that is answered so."""
        waiter = asyncio.ensure_future(server.ask(name))
        while not (self.clients and self.clients[-1].answers):
            await asyncio.sleep(0)
        deferred = self.clients[-1].answers.pop()
        if isinstance(answer, Exception):
            deferred.errback(answer)
        else:
            deferred.callback(answer)
        return await waiter

    def test_answers(self) -> None:
        """A document is read; an answer without one is given as it is; the connection stays."""

        async def story() -> None:
            server = self.server()
            document = await self.answering(server, "Status", {"document": json.dumps({"a": 1})})
            self.assertEqual(document, {"a": 1})
            self.assertEqual(await self.answering(server, "Stack", {"stack": "x"}), {"stack": "x"})
            [client] = self.clients
            self.assertEqual([each for each, _ in client.asked], [commands.Status, commands.Stack])
            server.close()
            self.assertTrue(client.closed)

        self.play(story())

    def test_refusals(self) -> None:
        """An error for an order says why, and the connection stays."""

        async def story() -> None:
            server = self.server()
            for error in (NotRunning("no job 7"), RemoteAmpError(b"X", "no job 7")):
                with self.assertRaisesRegex(Refused, "no job 7"):
                    await self.answering(server, "Stack", error)
            self.assertEqual([client.closed for client in self.clients], [False])

        self.play(story())

    def test_reconnects(self) -> None:
        """After the connection is lost, or cannot be made, the next question makes another."""

        async def story() -> None:
            server = self.server()
            with self.assertRaisesRegex(Unreachable, "gone"):
                await self.answering(server, "Status", Disconnected("gone"))
            self.failures.append(ConnectionError("nobody there"))
            with self.assertRaisesRegex(Unreachable, "nobody there"):
                await server.ask("Status")
            self.assertEqual(await self.answering(server, "Status", {"document": "3"}), 3)
            self.assertEqual([client.closed for client in self.clients], [True, False])

        self.play(story())

    def test_silence(self) -> None:
        """A connection without an answer for too long is given up."""

        async def story() -> None:
            server = self.server()
            waiter = asyncio.ensure_future(server.ask("Status"))
            while not (self.clients and self.clients[-1].answers):
                await asyncio.sleep(0)
            self.clock.advance(PATIENCE)
            with self.assertRaisesRegex(Unreachable, "no answer within 30 s"):
                await waiter
            self.assertTrue(self.clients[0].closed)

        self.play(story())

    def test_one_connection(self) -> None:
        """Questions that come together share one connection, and are asked side by side."""

        async def story() -> None:
            server = self.server()
            waiters = [asyncio.ensure_future(server.ask(name)) for name in ("Status", "Workers")]
            while not (self.clients and len(self.clients[-1].answers) == 2):
                await asyncio.sleep(0)
            for answer in self.clients[-1].answers:
                answer.callback({"document": "1"})
            self.assertEqual([await waiter for waiter in waiters], [1, 1])
            self.assertEqual(len(self.clients), 1)

        self.play(story())
