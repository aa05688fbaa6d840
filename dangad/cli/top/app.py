"""The full screen of ``dangad top``: what it shows, its keys, and what each key does.

Begun by :mod:`.command`. A loop asks for news once a second, or at once when the wish has changed.
The next question follows the answer to the last, however long that takes.
"""

from __future__ import annotations

import asyncio
import copy
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App
from textual.binding import Binding
from textual.events import Resize
from textual.widgets import Footer, Input, Static

from dangad.cli.jobdocuments import job_lines
from dangad.cli.top import summary
from dangad.cli.top.dialogs import Question, Reading
from dangad.cli.top.filterline import read_filter
from dangad.cli.top.guard import guarded, guarded_action
from dangad.cli.top.history import History
from dangad.cli.top.news import News, first_wish, look
from dangad.cli.top.server import Refused, Unreachable
from dangad.cli.top.table import EntriesTable
from dangad.cli.top.views import VIEWS, mark_of
from dangad.text import counted, printable, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from dangad.cli.top.server import Ask

PERIOD = 1.0
"""Seconds from one question for news to the next."""
SLOW = 3.0
"""Seconds without an answer after which the operator is told."""
SHORT = 16
"""Lines of a terminal that has no room for curves and tiles if it has fewer."""
PLACES = ("trouble", "head", "alerts", "curves", "tiles", "bar", "hint")
"""The names of the lines of text, from top to bottom. The table is above the last one."""
SCROLL_BAR = 2
"""Columns of the scroll bar at the right of the table."""
TALL = 30
"""Lines of a terminal with room for one more line of tiles."""
HELP = """\
j  jobs that wait or run
m  commands, with the figures of the last minute
r  jobs that failed last; again: all jobs that ended last
w  workers

/  filter: command=NAME client=TEXT state=WORD older-than=5m;
   among the jobs that ended last outcome=CODE, too
s  next sort order
S  the other way round

Enter  everything about the chosen job

c  cancel the chosen job, after a question; so does k
t  show the Python stack of the chosen job
p  pause or resume the chosen command, after a question

?  this help
q  quit, as Ctrl-C does; Ctrl-Z suspends
"""

_JOB_KEYS = {"jobs": "id", "recent": "id", "workers": "job"}
"""The views whose entries have a job, each with the key of the job's id."""
_LIVE = ("jobs", "workers")
"""The views whose jobs can be cancelled, and have a stack."""


class Top(App[None]):
    """The screen."""

    CSS_PATH = "top.tcss"
    ENABLE_COMMAND_PALETTE = False
    VERTICAL_BREAKPOINTS = [(0, "-short"), (SHORT, "-normal")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "view('jobs')", "Jobs", show=False),
        Binding("m", "view('commands')", "Commands", show=False),
        Binding("r", "view('recent')", "Recent", show=False),
        Binding("w", "view('workers')", "Workers", show=False),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("S", "reverse", "Reverse", show=False),
        Binding("c,k,delete", "cancel", "Cancel", key_display="c"),
        Binding("t", "stack", "Stack"),
        Binding("p", "pause", "Pause"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
    ]

    def __init__(
        self, ask: Ask, clock: Callable[[], float] = time.monotonic, period: float = PERIOD
    ) -> None:
        """Show a server.

        :param ask: asks it.
        :param clock: a clock that goes steadily.
        :param period: seconds from an answer to the next question.
        """
        super().__init__()
        self.theme = "ansi-dark"  # the colours of the terminal, which may as well be light
        self._ask = ask
        self._clock = clock
        self._period = period
        #: The places of the lines, in their order. They are kept here, because news may come when
        #: the screen is being closed, and cannot be asked for them any more.
        self._places = {name: Static(id=name, markup=False) for name in PLACES}
        #: The table.
        self._table = EntriesTable(id="entries")
        #: The filter line, which is hidden most of the time.
        self._line = Input(id="filter")
        #: What is wanted of each view.
        self._wishes = {name: first_wish(name) for name in VIEWS}
        #: The name of the view in the table.
        self._view = "jobs"
        #: The last news; None before the first.
        self._news: News | None = None
        #: The curves.
        self._history = History()
        #: Why there is no news; empty if there is.
        self._trouble = ""
        #: When the question was asked that is not answered yet; None if there is none.
        self._asked: float | None = None
        #: Set when news is wanted before its time.
        self._hurry = asyncio.Event()

    # What is shown.

    def compose(self) -> ComposeResult:
        """The lines above the table, the table, and the lines below it."""
        lines, hint = list(self._places.values())[:-1], self._places["hint"]
        yield from (*lines, self._table, self._line, hint, Footer())

    def on_mount(self) -> None:
        """Begin to ask."""
        self._table.focus()
        self._show_trouble()
        self.set_interval(self._period, self._show_trouble)
        self.run_worker(self._follow(), name="news")

    def on_resize(self, event: Resize) -> None:
        """Fit what is shown to the terminal, or write all of it again after `fg`."""
        # textual itself waits for a timer, which a busy machine can lose, and all later sizes, too
        for screen in self.screen_stack:
            screen.post_message(Resize(event.size, event.virtual_size))
        self.call_after_refresh(self._show_again)

    async def _follow(self) -> None:
        """Ask for news, for ever."""
        while True:
            self._hurry.clear()
            wish = self._wishes[self._view]
            self._asked = self._clock()
            with guarded(self._note_trouble):
                try:
                    self._take(await look(self._ask, wish))
                    self._trouble = ""
                except Unreachable as error:
                    self._trouble = f"no connection, trying again: {error}"
                except Refused as error:
                    self._trouble = f"the server refuses: {error}"
            self._asked = None
            self._show_trouble()
            try:
                await asyncio.wait_for(self._hurry.wait(), self._period)
            except TimeoutError:
                continue

    def _take(self, news: News) -> None:
        """Show news, and keep it, and the curves that it has made longer, if that can be done."""
        history = copy.deepcopy(self._history)
        history.add(news.status, self._clock())
        self._show(news, history)
        self._news, self._history = news, history

    def _show(self, news: News, history: History) -> None:
        """Show news in the size of the terminal."""
        width, height = self.size
        with self.batch_update():
            self._put("head", summary.head(news.status))
            self._put("alerts", summary.alerts(news.status))
            self._put("curves", summary.curves(history, news.status["jobs"]["waiting"], width))
            self._put("tiles", summary.tiles(news.workers, width, 3 if height >= TALL else 2))
            self._put("bar", self._bar(news))
            if not self._line.display:
                self._put("hint", Text(printable(news.wish.line), "bold yellow"))
            view = VIEWS[news.wish.view]
            room = width - SCROLL_BAR
            self._table.fill(view, news.wish.sort, news.entries, room)

    def _show_again(self) -> None:
        """Show the last news in the present size of the terminal."""
        if self._news is not None:
            with guarded(self._note_trouble):
                self._show(self._news, self._history)

    def _note_trouble(self, why: str) -> None:
        self._trouble = why

    def _show_trouble(self) -> None:
        """Show why there is no news."""
        said = self._trouble
        if self._asked is not None and self._clock() - self._asked >= SLOW:
            said = f"no answer for {show_seconds(self._clock() - self._asked)}; waiting"
        self._put("trouble", Text(printable(said)))
        self.set_class(bool(said), "stale")

    def _put(self, name: str, text: Text) -> None:
        """Show a text in its place, or nothing where there is none."""
        place = self._places[name]
        place.update(text)
        place.set_class(not text.plain, "empty")

    def _bar(self, news: News) -> Text:
        """The line above the table: the views, how much is shown, and in which order."""
        wish = news.wish
        bar = Text(" ", no_wrap=True)
        for name, view in VIEWS.items():
            bar.append(f" {view.key} {view.title} ", "reverse" if name == wish.view else "dim")
        shown = len(news.entries)
        count = f"{shown:,}" if shown >= news.total else f"{shown:,} of {news.total:,}"
        kind = ""
        if wish.view == "recent":
            kind = "  all" if wish.everything else "  failures"
        bar.append(f"  {count}{kind}  by {wish.sort.removeprefix('-')}{mark_of(wish.sort)}")
        return bar

    # What keys do.

    def _want(self, **changes: Any) -> None:
        """Want something else of the view, and look for it at once."""
        self._wishes[self._view] = replace(self._wishes[self._view], **changes)
        self._hurry.set()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key does something here."""
        if action == "filter":
            return bool(VIEWS[self._view].filters)
        return action not in ("cancel", "stack") or self._view in _LIVE

    def action_view(self, name: str) -> None:
        """Show another view; the jobs that ended well, too, if they are asked for again."""
        if name == self._view == "recent":
            self._want(everything=not self._wishes[name].everything)
            return
        self._view = name
        self.refresh_bindings()
        self._want()

    def action_sort(self) -> None:
        """Sort by the next key."""
        orders = VIEWS[self._view].orders
        keys = [order.removeprefix("-") for order in orders]
        now = keys.index(self._wishes[self._view].sort.removeprefix("-"))
        self._want(sort=orders[(now + 1) % len(orders)])

    def action_reverse(self) -> None:
        """Sort the other way round."""
        sort = self._wishes[self._view].sort
        self._want(sort=sort[1:] if sort.startswith("-") else f"-{sort}")

    def action_filter(self) -> None:
        """Open the filter line."""
        self._line.placeholder = " ".join(f"{each}=" for each in VIEWS[self._view].filters)
        self._line.value = self._wishes[self._view].line
        self._line.display = True
        self._line.focus()

    def on_key(self, event: events.Key) -> None:
        """Leave the filter line unchanged by Escape."""
        if event.key == "escape" and self._line.has_focus:
            self._close_filter()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Show what the filter line means, or say why it is not valid."""
        view = VIEWS[self._view]
        try:
            meant = read_filter(event.value, view.filters, view.states)
        except ValueError as error:
            self._put("hint", Text(printable(str(error)), "bold red"))
            return
        self._close_filter()
        self._want(meant=meant, line=event.value.strip())

    def _close_filter(self) -> None:
        self._put("hint", Text(""))
        self._line.display = False
        self._table.focus()
        self._show_again()

    def action_help(self) -> None:
        """Say what the keys do."""
        self.push_screen(Reading("dangad top", HELP.splitlines()))

    # Orders.

    def _chosen_job(self) -> tuple[int, str] | None:
        """The id and the command of the chosen job; None if there is none."""
        entry = self._table.chosen
        key = None if self._news is None else _JOB_KEYS.get(self._news.wish.view)
        if entry is None or key is None or entry[key] is None:
            return None
        return entry[key], entry["command"]

    @work
    @guarded_action
    async def action_cancel(self) -> None:
        """Cancel the chosen job, after a question."""
        chosen = self._chosen_job()
        if chosen is None:
            self._say("no job is chosen")
            return
        job, command = chosen
        if not await self.push_screen_wait(Question(f"Cancel job {job}, {command}?")):
            return
        document = await self._order("CancelJobs", jobs=[job])
        if document is not None:
            said = ", ".join(each["result"] for each in document["results"])
            self._say(f"job {job}, {command}: {said}")

    @work
    @guarded_action
    async def on_data_table_row_selected(self) -> None:
        """Show everything about the chosen job."""
        chosen = self._chosen_job()
        if chosen is None:
            return
        job, command = chosen
        document = await self._order("Job", job=job)
        if document is not None:
            self.push_screen(Reading(f"job {job}, {command}", job_lines(document, None)))

    @work
    @guarded_action
    async def action_stack(self) -> None:
        """Show where the chosen job is."""
        chosen = self._chosen_job()
        if chosen is None:
            self._say("no job is chosen")
            return
        job, command = chosen
        answer = await self._order("Stack", job=job)
        if answer is not None:
            self.push_screen(Reading(f"job {job}, {command}", answer["stack"].splitlines()))

    @work
    @guarded_action
    async def action_pause(self) -> None:
        """Pause the chosen command, or resume it, after a question."""
        entry = self._table.chosen
        command = None if entry is None else entry["command"]
        if command is None or self._news is None:
            self._say("no command is chosen")
            return
        paused = self._news.status["paused"]
        if paused["all"]:
            word, question, names = "Resume", "All commands are paused. Resume all?", {}
        elif command in paused["commands"]:
            word, question, names = "Resume", f"Resume {command}?", {"commands": [command]}
        else:
            said = f"Pause {command}? Its jobs wait; those that run go on."
            word, question, names = "Pause", said, {"commands": [command]}
        if not await self.push_screen_wait(Question(question)):
            return
        document = await self._order(word, **names)
        if document is not None:
            count = counted(len(document["commands"]), "command")
            self._say(f"paused now: {'all commands' if document['all'] else count}")

    async def _order(self, name: str, **arguments: Any) -> Any:
        """The answer to an order; None if there is none, which the operator is told."""
        try:
            answer = await self._ask(name, **arguments)
        except (Refused, Unreachable) as error:
            self.complain(str(error))
            return None
        self._hurry.set()
        return answer

    def _say(self, text: str) -> None:
        """Tell the operator something for some seconds."""
        self.notify(printable(text), markup=False)

    def complain(self, text: str) -> None:
        """Tell the operator for some seconds what was not done."""
        self.notify(printable(text), severity="error", markup=False)
