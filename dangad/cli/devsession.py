"""One run of ``dangad dev``: a server is started, watched, told of changed files, and ended.

Started by :mod:`dangad.cli.dev`. The server is :mod:`dangad.cli.devserver`'s, the files are watched
by :mod:`dangad.cli.filewatch`, the lines come from :mod:`dangad.cli.devlines`.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import shlex
import signal
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.error import ConnectError, ReactorNotRunning

from dangad.cli.devcalls import CallLines
from dangad.cli.devlines import JobLines, Screen, read_log_line
from dangad.cli.devserver import (
    ServerProcess,
    SocketFolder,
    client_address,
    endpoint_in,
    hold_port,
    how_ended,
    server_words,
)
from dangad.cli.filewatch import FileWatch, notices
from dangad.cli.outcome import FAILED, Failed, Signalled
from dangad.cli.subcommands import document_of
from dangad.cli.waits import has_booted
from dangad.client import Client, Disconnected, connect
from dangad.errors import DangadError, ReloadFailed
from dangad.text import counted
from dangad.wire import commands

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from dangad.cli.devlines import LogLine
    from dangad.cli.jobfiles import JobCode

MAX_PAYLOAD = 2**30
"""Bytes of the largest answer that is accepted."""
KINDS = "accepted,started,retried,ended,refused"
"""The kinds of events that are shown."""
SLOW_IMPORT = 3.0
"""Seconds after which a start says what it waits for."""
SLOW_RELOAD = 3.0
"""Seconds after which a reload says what it waits for."""
AFTERMATH = 0.5
"""Seconds after a reload in which the log still tells of it."""
SLOW_END = 1.0
"""Seconds after which the user is told how to end what does not end."""
MOST_NAMED = 3
"""The most changed files that are named."""

_OF_RELOADS = frozenset({"dangad.scheduler.failingstarts", "dangad.scheduler.reload"})
"""The names by which the log has what a reload comes to."""
_OF_WORKERS = "dangad.pool.link"
"""The name by which the log has the ends of workers, and starts that failed."""
_ALARMING = frozenset({"warn", "error", "critical"})
"""The levels of the log whose lines are shown, as :mod:`twisted.logger` names them."""


class _Phase(enum.Enum):
    """How far the server is."""

    STARTING = "starting"
    SERVING = "serving"
    DOWN = "down"
    ENDING = "ending"


class Session:
    """A server in the foreground, from its first start to Ctrl-C."""

    def __init__(
        self, reactor: Any, code: JobCode, listen: str | None, control: str | None
    ) -> None:
        """Remember what to serve.

        :param listen: where clients connect; None for a socket of this run's own.
        :param control: where operators connect, likewise.
        :raises WrongUsage: `listen` or `control` is not valid.
        """
        self._reactor = reactor
        self._code = code
        self._listen, self._control = listen, control
        for option, text in (("--listen", listen), ("--control", control)):
            if text is not None:
                client_address(option, text)  # it is valid
        #: Where the server can be reached, by the option of the command that says so.
        self._addresses: dict[str, str] = {}
        self._here = os.getcwd()  # it may be gone later
        #: Keeps the port of the page, whichever server is there.
        self._held = hold_port()
        self._page: int = self._held.getsockname()[1]
        self._folder = SocketFolder()
        self._screen = Screen(self.end)
        self._jobs = JobLines(reactor, self._screen)
        self._calls = CallLines(self._screen)
        signs = notices(reactor)
        self._files = FileWatch(reactor, code.folders, code.files, self._changed, signs)
        if signs is not None:
            signs.told = self._files.look
        self._server = ServerProcess(self._said, self._ended)
        #: How far the server is.
        self._phase = _Phase.DOWN
        #: What the server said before its log began.
        self._early: list[str] = []
        #: How many times it was started.
        self._starts = 0
        #: Whether its log has begun: then the job modules can be served.
        self._logs = False
        #: Whether files have changed since the server was started, and it does not serve yet.
        self._outdated = False
        #: The connection for operators; None while there is none.
        self._operator: Client | None = None
        #: How many reloads have begun; the number of the last one is shown alone.
        self._reloads = 0
        #: How many of them are under way, or have just ended.
        self._reloading = 0
        #: Why the run ends; empty while it goes on.
        self._reasons: list[BaseException] = []

    # The beginning and the end.

    def run(self) -> None:
        """Run the reactor until the session ends.

        :raises Signalled: a signal has ended it, as usual.
        :raises Failed: the server cannot be started.
        """
        self._reactor.callWhenRunning(self._begin)
        try:
            self._reactor.run()
        finally:
            self._folder.remove()
            self._held.close()
        raise self._reasons[0]

    def _begin(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._signalled)
        watched = self._files.start()
        names = ", ".join(self._code.modules)
        self._screen.say(
            ("dangad dev", "own"),
            f": {names}, loaded anew when a file beside it changes; Ctrl-C ends",
        )
        self._screen.say(
            "not for production: files are watched, running jobs end with it, sockets are yours "
            f"alone; there: twistd dangad {shlex.join(self._code.options)}"
        )
        for file in self._code.hiding:
            self._screen.say((f"{file} hides Python's module of this name: rename it", "odd"))
        if not watched.is_whole:
            self._screen.say(
                f"there is too much beside the job modules: only the first "
                f"{counted(len(watched.files), 'Python file')} are watched"
            )
        self._launch()

    def _signalled(self, number: int, _: object) -> None:
        self._reactor.callFromThread(self.end, Signalled(number))

    def end(self, reason: BaseException) -> None:
        """End the server, then the session; at once if it is being ended already."""
        self._reasons.append(reason)
        if not self._server.runs:
            self._stop()
        elif self._phase is _Phase.ENDING:
            self._server.hurry()
        else:
            self._phase = _Phase.ENDING
            self._files.stop()
            self._server.end()
            self._reactor.callLater(SLOW_END, self._say_ending)

    def _say_ending(self) -> None:
        self._screen.say("ending what runs; Ctrl-C again ends it at once")

    def _stop(self) -> None:
        self._files.stop()
        with contextlib.suppress(ReactorNotRunning):  # it is being stopped already
            self._reactor.stop()

    # The server's process.

    def _launch(self) -> None:
        """Start the server, unless the end has come meanwhile."""
        if self._reasons:
            return
        private = "" if self._listen and self._control else self._folder.make()
        listen = self._listen or endpoint_in(private, "dangad.sock")
        control = self._control or endpoint_in(private, "dangad.control")
        for name, text in (("connect", listen), ("control", control)):
            self._addresses[name] = client_address(name, text)
        self._phase = _Phase.STARTING
        self._early, self._logs, self._outdated = [], False, False
        words = server_words(self._code, listen, control, self._page)
        self._server.start(self._reactor, private, words)
        self._starts += 1
        self._reactor.callLater(SLOW_IMPORT, self._say_importing, self._starts)

    def _say_importing(self, start: int) -> None:
        if start == self._starts and self._phase is _Phase.STARTING:
            self._screen.say(f"the job modules are being imported, for {SLOW_IMPORT:g} s so far")

    def _said(self, line: str) -> None:
        """Take a line of the server's output."""
        logged = read_log_line(line)
        if logged is not None:
            self._logged(logged)
        elif self._phase is _Phase.STARTING:
            self._early.append(line)

    def _logged(self, line: LogLine) -> None:
        """Take a line of the server's log."""
        self._logs = True
        if line.output is not None:
            self._jobs.show_output(*line.output)
        elif line.who == "dangad.service" and " serves " in line.text:
            self._phase = _Phase.SERVING
            self._early.clear()
            self._run(self._serve())
        elif line.level in _ALARMING and not self._is_told_anyway(line):
            first, *more = line.text.splitlines() or [""]
            self._screen.say(("server: ", "odd"), first)
            for each in more:
                self._screen.write("          ", each)

    def _is_told_anyway(self, line: LogLine) -> bool:
        """Whether a line of the log says what is told by other lines."""
        if self._phase is _Phase.ENDING or line.who in _OF_RELOADS:
            return True
        return line.who == _OF_WORKERS and bool(self._reloading)

    def _ended(self, status: int) -> None:
        """Go on without the server, or end."""
        before, self._phase = self._phase, _Phase.DOWN
        self._folder.remove()
        self._jobs.flush()
        self._operator = None
        if before is _Phase.ENDING:
            self._stop()
            return
        said = [line.removeprefix("twistd dangad: ") for line in self._early]
        if before is _Phase.STARTING and not self._is_their_fault():
            why = said.pop() if said else f"it {how_ended(status)}"
            self.end(Failed(FAILED, f"the server does not start: {why}"))
        for line in said:
            self._screen.write("          ", line)
        if self._reasons:
            return
        if self._outdated:
            self._launch()
        elif before is _Phase.STARTING:
            self._screen.say(("not served", "bad"), "; waiting for a change of the files")
            if said and said[-1].endswith("decorate a function with @dangad.job"):
                self._screen.say("`dangad dev --help` shows how to write a job type")
        else:
            text = f"the server {how_ended(status)}"
            self._screen.say((text, "bad"), "; a change of the files starts it again")

    def _is_their_fault(self) -> bool:
        """Whether a start has failed because of the job modules."""
        last = self._early[-1] if self._early else ""
        options = ("twistd dangad: --", "twistd dangad: cannot listen on ")
        return not (self._logs or last.startswith(options))

    # While it serves.

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that takes some time; it ends early if the server goes away."""

        def failed(failure: Any) -> None:
            if failure.check(DangadError):
                self._screen.say(("server: ", "odd"), str(failure.value))
            elif not failure.check(Disconnected, ConnectError):
                self.end(failure.value)

        defer.Deferred.fromCoroutine(work).addErrback(failed)

    async def _serve(self) -> None:
        """Connect to the new server, and show what happens to its jobs."""
        self._jobs.flush()
        operator = await self._connect("control")
        self._operator = operator
        self._run(self._watch(operator))
        self._calls.forget()
        await self._show_calls()
        if self._outdated:
            self._outdated = False
            self._run(self._reload())

    async def _connect(self, name: str) -> Client:
        return await connect(self._reactor, self._addresses[name], max_payload=MAX_PAYLOAD)

    async def _watch(self, operator: Client) -> None:
        """Show what happens to jobs, until the connection ends."""
        after: dict[str, int] = {}
        while True:
            answer = await operator.run(commands.Watch, {"kinds": KINDS, **after})
            document = json.loads(answer["document"])
            if document["missed"]:
                self._screen.say(
                    f"{counted(document['missed'], 'event')} came too fast to be shown"
                )
            self._jobs.show_events(document["events"])
            after = {"after": document["next"]}

    async def _show_calls(self) -> None:
        """Show how to call each command that is new, or has other arguments than before."""
        client = await self._connect("connect")
        try:
            catalogue = await client.describe()
        finally:
            await client.close()
        self._calls.show(catalogue, self._addresses, self._page)

    # Changes of files.

    def _changed(self, paths: list[str]) -> None:
        """Let the server have the new code."""
        names = [os.path.relpath(path, self._here) for path in paths]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        changed = f"{', '.join(names[:MOST_NAMED])}{more} changed"
        if self._phase is _Phase.DOWN:
            self._screen.say(f"{changed}: starting again")
            self._launch()
        elif self._operator is None:
            self._outdated = True
        elif self._phase is _Phase.SERVING:
            self._screen.say(f"{changed}: reloading")
            self._run(self._reload())

    async def _reload(self) -> None:
        """Replace the workers, and show what came of it."""
        operator = self._operator
        if operator is None:
            return
        self._reloads += 1
        ours = self._reloads
        self._reloading += 1
        before = (await document_of(operator, "Status"))["generation"]
        slow = self._reactor.callLater(SLOW_RELOAD, self._say_slow, ours, before)
        try:
            await operator.run(commands.Reload)
        except ReloadFailed as error:
            if ours == self._reloads and await self._goes_on(operator):
                self._screen.say(
                    ("not reloaded: ", "bad"),
                    str(error).partition("cannot be served: ")[2] or str(error),
                )
                self._screen.say("the old code goes on; waiting for the next change")
            return
        except DangadError as error:
            if await self._goes_on(operator):
                self._screen.say(("not reloaded: ", "bad"), str(error))
            return
        finally:
            self._reactor.callLater(AFTERMATH, self._forget_reload)
            if slow.active():
                slow.cancel()
        if ours == self._reloads:
            self._screen.say(("reloaded", "good"))
            await self._show_calls()

    async def _goes_on(self, operator: Client) -> bool:
        """Whether the server goes on; a Ctrl-C may reach it before this program."""
        state = (await document_of(operator, "Status"))["state"]
        return self._phase is not _Phase.ENDING and state == "running"

    def _forget_reload(self) -> None:
        self._reloading -= 1

    def _say_slow(self, ours: int, before: int) -> None:
        operator = self._operator
        if ours == self._reloads and self._phase is _Phase.SERVING and operator is not None:
            self._run(self._show_slow(operator, before))

    async def _show_slow(self, operator: Client, before: int) -> None:
        """Show what a reload waits for.

        :param before: the generation of the workers before it.
        """
        workers = await document_of(operator, "Workers")
        generation = (await document_of(operator, "Status"))["generation"]
        if has_booted(before, generation, workers):
            self._screen.say("still reloading; running jobs end with the code that they began with")
            await self._show_calls()
        else:
            self._screen.say(f"the new code is being imported, for {SLOW_RELOAD:g} s so far")
