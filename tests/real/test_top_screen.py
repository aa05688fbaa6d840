"""The screen of `dangad top`, without a terminal: what it shows, and what its keys do."""

from __future__ import annotations

import asyncio
import copy
import time
from typing import TYPE_CHECKING, Any

from textual.widgets import DataTable, Input, Static
from twisted.trial.unittest import SynchronousTestCase

from dangad.cli.top.app import SLOW, Top
from dangad.cli.top.dialogs import Question, Reading
from dangad.cli.top.history import BLOCKS
from dangad.cli.top.server import Refused, Unreachable
from tests import topscreenshot
from tests.fakeoperations import (
    CANCELLED,
    COMMANDS,
    DETAIL,
    JOBS,
    PAUSED,
    RECENT,
    STACK,
    STATUS,
    WORKERS,
)
from tests.unit.cli.test_top_parts import ESCAPED, HOSTILE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.pilot import Pilot

    Story = Callable[["Screen"], Awaitable[None]]

PATIENCE = 20.0
"""Seconds after which something that should have happened is taken for hung."""
LOOKS = ("Status", "Workers", "Jobs", "Commands", "Recent")
"""The commands that only look."""


def job(number: int, **facts: Any) -> dict[str, Any]:
    """A job that waits."""
    return {**JOBS["jobs"][1], "id": number, "paused": False, **facts}


class FakeServer:
    """Answers by documents, which a test may change at any time.

    :ivar asked: what it was asked, in order.
    :ivar trouble: raised instead of an answer, if there is one.
    :ivar gate: what each answer waits for.
    :ivar at_once: the most questions that were open together.
    """

    def __init__(self) -> None:
        self.documents: dict[str, Any] = copy.deepcopy(
            {
                "Status": STATUS,
                "Workers": WORKERS,
                "Jobs": {"total": 2000, "jobs": [job(number) for number in range(1, 13)]},
                "Commands": COMMANDS,
                "Recent": RECENT,
                "CancelJobs": {**CANCELLED, "results": CANCELLED["results"][:1]},
                "Pause": PAUSED,
                "Resume": {"all": False, "commands": []},
                "Stack": {"stack": STACK},
                "Job": DETAIL,
            }
        )
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.trouble: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.open = 0
        self.at_once = 0

    async def ask(self, name: str, **arguments: Any) -> Any:
        """See :class:`dangad.cli.top.server.Ask`."""
        self.asked.append((name, arguments))
        self.open += 1
        self.at_once = max(self.at_once, self.open)
        try:
            await self.gate.wait()
        finally:
            self.open -= 1
        if self.trouble is not None:
            raise self.trouble
        answer = self.documents[name]
        if isinstance(answer, Exception):
            raise answer
        return copy.deepcopy(answer)

    @property
    def orders(self) -> list[tuple[str, dict[str, Any]]]:
        """What it was asked to do."""
        return [each for each in self.asked if each[0] not in LOOKS]

    def set_jobs(self, *jobs: dict[str, Any]) -> None:
        """Have these jobs and no others."""
        self.documents["Jobs"] = {"total": len(jobs), "jobs": list(jobs)}


class Screen:
    """The screen, its server, and a clock that the test advances."""

    def __init__(self, period: float) -> None:
        self.server = FakeServer()
        self.now = 0.0
        self.app = Top(self.server.ask, lambda: self.now, period)
        self.pilot: Pilot[None]

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        """Wait until it is true."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"{what or 'it'} did not come true:\n{self.text}"
            await asyncio.sleep(0.01)

    async def press(self, *keys: str) -> None:
        """Press keys."""
        await self.pilot.press(*keys)

    async def shows(self, text: str) -> None:
        """Wait until the screen has this text."""
        await self.until(lambda: text in self.text, repr(text))

    async def shows_no(self, text: str) -> None:
        """Wait until the screen does not have this text."""
        await self.until(lambda: text not in self.text, f"not {text!r}")

    async def stands_on(self, row: int) -> None:
        """Wait until the cursor is on this row."""
        await self.until(lambda: self.table.cursor_row == row, f"row {row}")

    async def asked_by(self, order: str) -> None:
        """Wait until the server was asked for this sort order."""
        await self.until(lambda: self.server.asked[-1][1].get("sort") == order, order)

    async def asks(self) -> None:
        """Wait until a question lies on the screen."""
        await self.until(lambda: isinstance(self.app.screen, Question), "a question")

    async def looks(self) -> None:
        """Wait until the server was asked for news again, and these are shown."""
        before = self._looks()
        await self.until(lambda: self._looks() >= before + 2, "a look")
        await self.pilot.pause()

    def _looks(self) -> int:
        return sum(name == "Status" for name, _ in self.server.asked)

    @property
    def text(self) -> str:
        """All that can be read on the screen, line by line."""
        return "\n".join(strip.text for strip in self.app.screen._compositor.render_strips())

    @property
    def table(self) -> DataTable[Any]:
        """The table."""
        return self.app.query_one(DataTable)

    def cell(self, row: int, head: str) -> str:
        """The text of a cell."""
        heads = [column.label.plain.lstrip("▲▼") for column in self.table.ordered_columns]
        text: str = self.table.get_row_at(row)[heads.index(head)].plain
        return text

    @property
    def chosen(self) -> str:
        """The id of the chosen job."""
        return self.cell(self.table.cursor_row, "JOB")


def play(story: Story, size: tuple[int, int] = (80, 24), period: float = 0.2) -> None:
    """Run a test of a screen of this size in asyncio."""

    async def run() -> None:
        screen = Screen(period)
        async with screen.app.run_test(size=size, notifications=True) as pilot:
            screen.pilot = pilot
            await screen.until(lambda: screen._looks() and screen.table.columns, "the first news")
            await story(screen)

    asyncio.run(asyncio.wait_for(run(), 60))


class ShowingTests(SynchronousTestCase):
    def test_small_terminal(self) -> None:
        """80 columns and 24 lines have room for all views, and for the keys."""

        async def story(screen: Screen) -> None:
            await screen.shows("12 of 2,000  by state▲")
            for text in ("dangad 0.1.0", "jobs/s", "● 4711 Thumbnail 2.1 s", "paused: Rotate"):
                self.assertIn(text, screen.text)
            await screen.shows("/ Filter  s Sort  c Cancel  t Stack  p Pause  ? Help  q Quit")
            for key, text in (
                ("m", "▼RUNNING"),
                ("w", "COMMAND"),
                ("r", "failures"),
                ("j", "WAIT"),
            ):
                await screen.press(key)
                await screen.shows(text)

        play(story)

    def test_any_size(self) -> None:
        """In a terminal of any size what is shown fits, also when the size changes."""

        async def story(screen: Screen) -> None:
            for size in ((40, 10), (200, 60), (20, 5), (80, 24), (1, 1), (120, 30)):
                await screen.pilot.resize_terminal(*size)
                await screen.looks()
                columns = screen.table.ordered_columns
                total = sum(column.get_render_width(screen.table) for column in columns)
                if size[0] >= 20:
                    self.assertLessEqual(total, size[0])
            await screen.shows("q Quit")

        play(story)

    def test_lost_timer(self) -> None:
        """The size changes even if textual's timer for that was lost, as on a busy machine."""

        async def story(screen: Screen) -> None:
            screen.app._resize_timer = screen.app.set_timer(1e9)
            await screen.pilot.resize_terminal(120, 30)
            await screen.shows("WORKER")
            self.assertEqual(screen.app.screen.size.width, 120)

        play(story)

    def test_hostile_names(self) -> None:
        """Names of peers are shown as they are, and never as markup or control characters."""

        async def story(screen: Screen) -> None:
            screen.server.set_jobs(job(1, command=HOSTILE, client=HOSTILE))
            status = screen.server.documents["Status"]
            status["paused"]["commands"] = ["[blink]x[/nothing]"]
            status["no_workers"] = HOSTILE
            worker = screen.server.documents["Workers"][0]
            worker["job"]["command"] = "[b]x[/]"
            screen.server.documents["Stack"] = {"stack": f"File [red]x[/] {HOSTILE}"}
            screen.server.documents["CancelJobs"] = Refused(HOSTILE)
            for text in (f"no workers: {ESCAPED}", "paused: [blink]x[/nothing]", "[b]x[/]"):
                await screen.shows(text)
            self.assertEqual(screen.cell(0, "COMMAND"), ESCAPED)
            self.assertEqual(screen.cell(0, "CLIENT"), ESCAPED)
            await screen.press("t")
            await screen.shows(rf"File [red]x[/] {ESCAPED[:20]}")
            await screen.press("q", "c")
            await screen.shows(f"Cancel job 1, {ESCAPED}?")
            await screen.press("y")
            await screen.shows("[red]x[/] [/]")
            for name in ("Recent", "Commands"):
                for entry in screen.server.documents[name]:
                    entry.update(dict.fromkeys(("command", "client", "error"), "[red]y[/]"))
            await screen.press("r")
            await screen.until(lambda: screen.table.row_count and "ERROR" in screen.text)
            self.assertEqual(screen.cell(0, "ERROR"), "[red]y[/]")
            await screen.press("m")
            await screen.until(lambda: "WAITING" in screen.text)
            self.assertEqual(screen.cell(0, "COMMAND"), "[red]y[/]")

        play(story, (160, 40))

    def test_picture(self) -> None:
        """The picture in the reference shows what the screen shows today."""
        there = topscreenshot.texts(topscreenshot.PICTURE.read_text())
        now = topscreenshot.texts(asyncio.run(topscreenshot.draw(looks=2)))
        self.assertIn("CLIENT", "".join(now))
        changed = [
            text
            for text in now
            if text not in there and "most" not in text and not set(text) & set(BLOCKS)
        ]
        self.assertEqual(changed, [], "draw it anew: python -m tests.topscreenshot")

    def test_terminal_colours(self) -> None:
        """The colours are those of the terminal, so that it may be light or dark."""

        async def story(screen: Screen) -> None:
            self.assertTrue(screen.app.native_ansi_color)
            for key in ("slash", "escape", "t", "q", "c"):
                await screen.press(key)
                for widget in screen.app.screen.query("*"):
                    background, text = widget.background_colors[1], widget.colors[3]
                    self.assertIsNotNone(background.ansi, widget)
                    self.assertIsNotNone(text.ansi, widget)

        play(story)


class FollowingTests(SynchronousTestCase):
    def test_trouble(self) -> None:
        """The screen says why there is no news, keeps the old, and goes on when there is news."""

        async def story(screen: Screen) -> None:
            for trouble, text in (
                (Unreachable("nobody [there]"), "no connection, trying again: nobody [there]"),
                (Refused("no such command"), "the server refuses: no such command"),
            ):
                screen.server.trouble = trouble
                await screen.shows(text)
                self.assertEqual(screen.table.row_count, 12)
                screen.server.trouble = None
                await screen.shows_no(text)
            del screen.server.documents["Status"]["last"]
            await screen.shows("cannot be shown by this dangad: KeyError('last')")
            await screen.pilot.resize_terminal(100, 30)
            screen.server.documents["Status"]["last"] = STATUS["last"]
            await screen.shows_no("cannot be shown")

        play(story)

    def test_odd_news(self) -> None:
        """News of any shape are shown or are said to be odd; then the screen goes on as before."""

        async def story(screen: Screen) -> None:
            documents = screen.server.documents
            status, recent = documents["Status"], documents["Recent"]
            odd: tuple[tuple[str, Any], ...] = (
                ("Recent", [{**recent[0], "ended": 1e300}]),
                ("Recent", [{**recent[0], "ended": float("nan")}]),
                ("Recent", [{"id": 1}]),
                ("Recent", RecursionError("too deep")),
                ("Workers", [None]),
                ("Status", {**status, "uptime": 10**400}),
                ("Status", {**status, "jobs": {**status["jobs"], "waiting": float("nan")}}),
                ("Status", {**status, "jobs": {**status["jobs"], "done": float("nan")}}),
                ("Status", None),
            )
            await screen.press("r")
            await screen.shows("failures")
            for name, document in odd:
                before, documents[name] = documents[name], document
                await screen.looks()
                await screen.looks()
                await screen.pilot.resize_terminal(100 if screen.app.size.width == 80 else 80, 24)
                documents[name] = before
                await screen.looks()
                await screen.shows_no("cannot be shown")
                await screen.shows("ERROR")

        play(story)

    def test_one_question_at_a_time(self) -> None:
        """While the server is slow, nothing more is asked, and the screen says for how long."""

        async def story(screen: Screen) -> None:
            await screen.looks()
            screen.server.gate.clear()
            await screen.until(lambda: screen.server.open)
            asked = len(screen.server.asked)
            screen.now += SLOW + 1
            await screen.press("s", "w", "j", "S")
            await screen.shows("no answer for 4.0 s; waiting")
            self.assertEqual(len(screen.server.asked), asked)
            screen.server.gate.set()
            await screen.shows_no("no answer")
            await screen.shows("by wait▲")
            self.assertEqual(screen.server.at_once, 1)

        play(story)

    def test_at_once(self) -> None:
        """What is wanted anew is asked for at once, and not after the period."""

        async def story(screen: Screen) -> None:
            for keys, order in ((["s"], "-wait"), (["s"], "-runtime"), (["S"], "runtime")):
                await screen.press(*keys)
                await screen.asked_by(order)
            for _ in range(3):
                await screen.press("s")
            await screen.asked_by("client")
            await screen.press("s")
            await screen.shows("by state▲")

        play(story, period=1000.0)


class ChoosingTests(SynchronousTestCase):
    def test_cursor(self) -> None:
        """The cursor stays with the chosen job, whatever comes and goes around it."""

        async def story(screen: Screen) -> None:
            await screen.press("down", "down", "down")
            self.assertEqual(screen.chosen, "4")
            for jobs, row in (
                ([job(number) for number in (90, 91, 1, 2, 3, 4, 5)], 5),
                ([job(4), job(1)], 0),
                ([job(number) for number in range(99, 0, -1)], 95),
            ):
                screen.server.set_jobs(*jobs)
                await screen.stands_on(row)
                self.assertEqual(screen.chosen, "4")
            screen.server.set_jobs()
            await screen.until(lambda: not screen.table.row_count)
            await screen.press("c")
            await screen.shows("no job is chosen")
            await screen.press("t")
            self.assertEqual(screen.server.orders, [])

        play(story)

    def test_filter(self) -> None:
        """The filter line is checked, kept for its view, and left by Escape."""

        async def story(screen: Screen) -> None:
            line = screen.app.query_one("#filter", Input)
            await screen.press("slash")
            await screen.until(lambda: line.has_focus)
            line.value = "command=[red] state=runing"
            await screen.press("enter")
            await screen.shows("did you mean running?")
            self.assertTrue(line.has_focus)
            line.value = "command=[red] older-than=2m"
            await screen.press("enter")
            await screen.shows("command=[red] older-than=2m ")
            self.assertEqual(
                screen.server.asked[-1][1],
                {"sort": "state", "limit": 100, "command": "[red]", "older_than": 120.0},
            )
            await screen.press("slash")
            self.assertEqual(line.value, "command=[red] older-than=2m")
            line.value = "rubbish"
            await screen.press("escape")
            await screen.looks()
            self.assertEqual(screen.server.asked[-1][1].get("command"), "[red]")
            self.assertFalse(line.display)
            self.assertTrue(screen.table.has_focus)
            await screen.press("r")
            await screen.shows("failures")
            self.assertNotIn("command", screen.server.asked[-1][1])
            await screen.press("slash")
            await screen.until(lambda: line.has_focus)
            self.assertEqual(line.value, "")
            await screen.press("escape", "j", "slash")
            await screen.until(lambda: line.has_focus)
            self.assertEqual(line.value, "command=[red] older-than=2m")

        play(story)


class OrderTests(SynchronousTestCase):
    def test_cancel(self) -> None:
        """Nothing is cancelled without a yes; and then the job that the question was about."""

        async def story(screen: Screen) -> None:
            for key, answer in (("c", "n"), ("k", "escape"), ("delete", "q")):
                await screen.press(key)
                await screen.asks()
                await screen.press(answer)
                await screen.until(lambda: not isinstance(screen.app.screen, Question))
            self.assertEqual(screen.server.orders, [])
            await screen.press("down", "c")
            await screen.shows("Cancel job 2, Rotate?")
            screen.server.set_jobs(job(7), job(8))
            await screen.looks()
            await screen.press("y")
            await screen.shows("job 2, Rotate: cancelled")
            self.assertEqual(screen.server.orders, [("CancelJobs", {"jobs": [2]})])

        play(story)

    def test_other_views(self) -> None:
        """The job of a worker can be cancelled; what has ended, or is no job, cannot."""

        async def story(screen: Screen) -> None:
            await screen.press("w")
            await screen.shows("its code")
            await screen.press("c")
            await screen.shows("Cancel job 120, Thumbnail?")
            await screen.press("n", "down", "c")
            await screen.shows("no job is chosen")
            for key, text in (("r", "failures"), ("m", "WAITING")):
                await screen.press(key)
                await screen.shows(text)
                await screen.press("c", "t")
                await screen.looks()
                self.assertNotIsInstance(screen.app.screen, Question)
            self.assertEqual(screen.server.orders, [])

        play(story, (120, 30))

    def test_pause(self) -> None:
        """A command is paused or resumed after a question, whichever is not so."""

        async def story(screen: Screen) -> None:
            expected = []
            status = screen.server.documents["Status"]
            for paused, question, order in (
                ({"all": False, "commands": []}, "Pause Rotate?", ("Pause", ["Rotate"])),
                ({"all": False, "commands": ["Rotate"]}, "Resume Rotate?", ("Resume", ["Rotate"])),
                ({"all": True, "commands": []}, "Resume all?", ("Resume", None)),
            ):
                status["paused"] = paused
                await screen.looks()
                await screen.press("p")
                await screen.shows(question)
                await screen.press("n", "p")
                await screen.shows(question)
                await screen.press("y")
                await screen.shows("paused now: ")
                name, names = order
                expected.append((name, {} if names is None else {"commands": names}))
                self.assertEqual(screen.server.orders, expected)

        play(story)

    def test_stack(self) -> None:
        """The stack of a running job can be scrolled, and closed."""

        async def story(screen: Screen) -> None:
            screen.server.documents["Stack"] = {"stack": STACK + "  line\n" * 90 + "  last line"}
            await screen.press("t")
            await screen.until(lambda: isinstance(screen.app.screen, Reading))
            self.assertEqual(screen.server.orders, [("Stack", {"job": 1})])
            await screen.shows("line 12 in shrink")
            self.assertNotIn("last line", screen.text)
            await screen.press("end")
            await screen.shows("last line")
            await screen.press("escape")
            await screen.until(lambda: not isinstance(screen.app.screen, Reading))

        play(story)

    def test_everything_about_a_job(self) -> None:
        """Enter shows all that is known of the chosen job: one that waits, runs, or has ended."""

        async def story(screen: Screen) -> None:
            await screen.press("down", "enter")
            await screen.shows("job 2, Rotate")
            await screen.shows("ValueError: not an image")
            self.assertEqual(screen.server.orders, [("Job", {"job": 2})])
            await screen.press("escape", "r")
            await screen.shows("failures")
            await screen.press("enter")
            await screen.shows("job 119, ListDirectory")
            await screen.press("escape", "m")
            await screen.shows("▼RUNNING")
            await screen.press("enter")
            await screen.looks()
            self.assertEqual(screen.server.orders[1:], [("Job", {"job": 119})])

        play(story, (100, 40))

    def test_refused(self) -> None:
        """An order that is refused says why."""

        async def story(screen: Screen) -> None:
            screen.server.documents["Stack"] = Refused("no job 1 is running")
            await screen.press("t")
            await screen.shows("no job 1 is running")

        play(story)

    def test_odd_answers(self) -> None:
        """An answer to an order that cannot be shown is told as such, and the screen goes on."""

        async def story(screen: Screen) -> None:
            documents = screen.server.documents
            documents["Job"] = {}
            documents["Stack"] = RecursionError("too deep")
            documents["CancelJobs"] = {"results": None}
            documents["Resume"] = []
            for keys, text in (
                (("enter",), "KeyError("),
                (("t",), "RecursionError("),
                (("c", "y"), "TypeError("),
                (("p", "y"), "TypeError("),
            ):
                for key in keys:
                    if key == "y":
                        await screen.asks()
                    await screen.press(key)
                await screen.shows(text)
                screen.app.clear_notifications()
                await screen.shows_no(text)

        play(story, (200, 40))

    def test_help_and_quit(self) -> None:
        """The help names each key; q closes it, and then the screen, as Ctrl-C does anywhere."""

        async def story(screen: Screen) -> None:
            await screen.press("question_mark")
            await screen.shows("resume the chosen command")
            told = screen.app.screen.query_one("#text", Static).render()
            for bindings in screen.app._bindings.key_to_bindings.values():
                for binding in bindings:
                    key = binding.key_display or binding.key
                    if "+" not in key and key not in ("k", "delete"):
                        self.assertIn(f"\n{key}  ", f"\n{told}")
            await screen.press("q")
            await screen.until(lambda: not isinstance(screen.app.screen, Reading))
            self.assertTrue(screen.app.is_running)
            await screen.press("q")
            await screen.until(lambda: not screen.app.is_running)

        async def in_question(screen: Screen) -> None:
            await screen.press("c")
            await screen.asks()
            await screen.press("ctrl+c")
            await screen.until(lambda: not screen.app.is_running)
            self.assertEqual(screen.server.orders, [])

        play(story)
        play(in_question)
