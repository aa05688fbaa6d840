"""The operators' subcommands of ``dangad``, run as processes, and the pages that describe them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.threads import deferToThread
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase, TestCase

from dangad import cli
from dangad.cli.configtext import show_config
from dangad.cli.documents import (
    show_counters,
    show_deaths,
    show_paused,
    show_reloaded,
    show_scaled,
    show_shutdown,
    show_stack,
    show_status,
    show_workers,
)
from dangad.cli.jobdocuments import (
    show_cancelled,
    show_clients,
    show_event,
    show_job,
    show_jobs,
    show_recent,
)
from dangad.cli.rates import show_rates
from dangad.errors import BadArguments, NotRunning, ReloadFailed
from dangad.operators.control import MAX_CONNECTIONS, MAX_REQUEST, MAX_WAITING, ControlFactory
from dangad.wire import commands
from tests.fakeoperations import (
    CANCELLED,
    CLIENTS,
    COMMANDS,
    CONFIG,
    COUNTERS,
    DEATHS,
    DETAIL,
    EVENTS,
    JOB,
    JOBS,
    PAUSED,
    RECENT,
    STACK,
    STATUS,
    WORKERS,
    FakeOperations,
)
from tests.realserver import until
from tests.unit.server.test_server import request
from tests.warmcommand import WarmCommand, complained, wrote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.defer import Deferred

reactor: Any = _reactor

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs" / "reference"
NAMES = (
    "Status",
    "Workers",
    "Deaths",
    "Jobs",
    "Recent",
    "Job",
    "Commands",
    "Clients",
    "Watch",
    "Config",
    "Cancel",
    "Pause",
    "Resume",
    "Scale",
    "Pardon",
    "Stack",
    "Reload",
    "Drain",
    "Shutdown",
)
EVIL = "\x1b]0;x\x07\r\u202e"
"""A text that would be obeyed by a terminal."""
RATES = {"over": "5m", "commands": COMMANDS}


class ShowingTest(SynchronousTestCase):
    def test_no_workers(self) -> None:
        """A status says why there are no workers, and how a reload failed."""
        status = copy.deepcopy(STATUS)
        status["no_workers"] = "jobs.py does not import\x1b"
        status["reload"] = {"state": "failed", "reason": "SyntaxError"}
        lines = show_status(status)
        self.assertIn(r"no workers       jobs.py does not import\x1b", lines)
        self.assertIn("generation       2 (reload failed: SyntaxError)", lines)
        self.assertFalse([line for line in show_status(STATUS) if "no workers" in line])

    def test_never_reloaded(self) -> None:
        """Of a server that was never reloaded nothing is said of reloads."""
        status = {**STATUS, "generation": 1, "reload": {"state": "none", "reason": ""}}
        self.assertIn("generation       1", show_status(status))

    def test_rates(self) -> None:
        """A rate that would be 0.0 a second is told for a minute."""
        rates = {0.0: "0.0/s", 0.049: "2.9/min", 1 / 900: "0.067/min", 0.05: "0.1/s", 7.0: "7.0/s"}
        for rate, shown in rates.items():
            last = {**STATUS["last"], "5m": {**STATUS["last"]["5m"], "rate": rate}}
            lines = show_status({**STATUS, "last": last})
            self.assertTrue([line for line in lines if f"last 5m          {shown}, " in line])

    def test_nothing_to_list(self) -> None:
        """Without workers or jobs the tables have only their heads."""
        self.assertEqual([len(show([])) for show in (show_workers, show_recent)], [1, 1])

    def test_evil_names(self) -> None:
        """No name and no stack can tamper with a terminal."""
        job = {**RECENT[0], "command": "\x1b]0;x\x07"}
        worker = {**WORKERS[0], "job": {**WORKERS[0]["job"], "command": "\x1b[2J"}}
        for lines in (
            show_recent([job]),
            show_workers([worker]),
            show_stack({"stack": "\x1b[2J\r\n\tx\u202e"}),
            show_jobs({"total": 1, "jobs": [{**JOBS["jobs"][0], "client": EVIL}]}),
            show_job({**DETAIL, "output": [EVIL], "traceback": EVIL, "command": EVIL}),
            show_clients({"total": 1, "clients": [{**CLIENTS["clients"][0], "client": EVIL}]}),
            show_rates({"over": "5m", "commands": [{**COMMANDS[0], "errors": {EVIL: 1}}]}),
            show_cancelled({"results": [{"id": 1, "command": EVIL, "result": "ended"}]}),
            show_paused({"all": False, "commands": [EVIL]}),
            show_deaths([{**DEATHS[0], "why": EVIL}]),
            [show_event({**event, "text": EVIL, "kind": EVIL}) for event in EVENTS["events"]],
            show_status(
                {
                    **STATUS,
                    "failed_by_code": {EVIL: 1},
                    "paused": {"all": False, "commands": [EVIL]},
                }
            ),
        ):
            self.assertTrue(all(line.isprintable() for line in lines), lines)


class OperatorCase(TestCase):
    """A stand-in for a server on a real socket, and the command run in a process of its own."""

    timeout = 90
    warm: ClassVar[WarmCommand]

    @classmethod
    def setUpClass(cls) -> None:
        """Have a process for all runs of the command."""
        super().setUpClass()
        cls.warm = WarmCommand()
        cls.addClassCleanup(cls.warm.close)

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Listen."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.socket = os.path.join(folder.name, "dangad.control")
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("DANGAD_")
        }
        self.environment = {**inherited, "PYTHONPATH": str(ROOT)}
        self.operations = FakeOperations()
        self.factory = ControlFactory(reactor, self.operations)
        port = await UNIXServerEndpoint(reactor, self.socket).listen(self.factory)
        self.addCleanup(port.stopListening)
        self.addCleanup(self.factory.close)

    def start(
        self, *words: str, **environment: str
    ) -> Deferred[subprocess.CompletedProcess[bytes]]:
        """Run the command where the socket is; fires with what it did."""

        def run() -> subprocess.CompletedProcess[bytes]:
            return self.warm.run(
                *words, folder=self.folder, environment=self.environment | environment
            )

        return deferToThread(run)

    async def output(self, *words: str, **environment: str) -> str:
        """What the command wrote, successfully and without complaint."""
        return wrote(await self.start(*words, **environment)).decode()

    async def complaint(self, status: int, *words: str, **environment: str) -> str:
        """The one line that the command complained in, ending with this status."""
        return complained(status, await self.start(*words, **environment))


class CommandTest(OperatorCase):
    async def test_looking(self) -> None:
        """What only looks prints lines for people, or with --json the documents."""
        for name, document, lines in (
            ("status", STATUS, show_status(STATUS)),
            ("workers", WORKERS, show_workers(WORKERS)),
            ("deaths", DEATHS, show_deaths(DEATHS)),
            ("jobs", JOBS, show_jobs(JOBS)),
            ("recent", RECENT, show_recent(RECENT)),
            ("clients", CLIENTS, show_clients(CLIENTS)),
            ("rates", RATES, show_rates(RATES)),
            ("config", CONFIG, show_config(CONFIG)),
        ):
            self.assertEqual(await self.output(name), "".join(f"{line}\n" for line in lines))
            output = await self.output(name, "--json")
            self.assertEqual((json.loads(output), output.count("\n")), (document, 1))

    async def test_job(self) -> None:
        """`job` tells all about one job, or that there is none of this id."""
        lines = "".join(f"{line}\n" for line in show_job(DETAIL))
        self.assertEqual(await self.output("job", "118"), lines)
        self.assertEqual(json.loads(await self.output("job", "118", "--json")), DETAIL)
        self.assertEqual(await self.complaint(1, "job", "7"), "NOT_FOUND: no job 7")

    async def test_filters(self) -> None:
        """Filters, orders and pages reach the server; times are typed with a unit, or without."""
        words = "--state queued --command Rotate --client 127. --older-than 5m --sort -wait"
        await self.output("jobs", *words.split(), "--limit", "7", "--offset", "14")
        meant = {"state": "queued", "command": "Rotate", "client": "127.", "older_than": 300.0}
        self.assertEqual(self.operations.asked, [(meant, "-wait", 7, 14)])
        self.operations.asked.clear()
        await self.output("recent", "--outcome", "NOT_FOUND", "--older-than", "90", "--limit=5")
        await self.output("recent", "--state", "timed out", "--sort=-runtime", "--json")
        await self.output("clients", "--sort", "-bytes", "--limit", "3")
        self.assertEqual(
            self.operations.asked,
            [
                ({"outcome": "NOT_FOUND", "older_than": 90.0}, None, 5),
                ({"state": "timed out"}, "-runtime", 1000),
                ("-bytes", 3),
            ],
        )

    async def test_more_than_shown(self) -> None:
        """People are told if a list is not complete; programs see it in the document."""
        self.operations.jobs_document = {**JOBS, "total": 4321}
        done = await self.start("jobs")
        self.assertEqual((done.returncode, done.stdout.count(b"\n")), (0, 3))
        hint = "dangad: 2 of 4321 jobs; --limit N and --offset N show others\n"
        self.assertEqual(done.stderr.decode(), hint)
        await self.output("jobs", "--json")

    async def test_cancel_by_ids(self) -> None:
        """`cancel` with ids does not ask, and tells what became of each."""
        lines = "".join(f"{line}\n" for line in show_cancelled(CANCELLED))
        self.assertEqual(await self.output("cancel", "121", "120", "121"), lines)
        output = await self.output("cancel", "7", "--json")
        self.assertEqual(json.loads(output), CANCELLED)
        self.assertEqual(self.operations.cancelled, [([121, 120], 1000), ([7], 1000)])

    async def test_cancel_by_filter(self) -> None:
        """`cancel` with a filter asks; where it cannot, it wants to be told that it need not."""
        words = ("cancel", "--command", "Rotate", "--older-than", "2h")
        text = await self.complaint(2, *words)
        self.assertEqual(text, "there is no terminal to ask on: add --yes to cancel without asking")
        self.assertEqual(self.operations.cancelled, [])
        await self.output(*words, "--yes")
        meant = {"command": "Rotate", "older_than": 7200.0}
        self.assertEqual(self.operations.cancelled, [(meant, 1000)])

    async def test_cancel_asks(self) -> None:
        """On a terminal `cancel` says how many jobs match; only after a yes they are cancelled."""
        self.operations.jobs_document = {**JOBS, "total": 1234}
        for answer, status, cancelled in ((b"n\n", 1, 0), (b"\n", 1, 0), (b"y\n", 0, 1)):
            main, terminal = pty.openpty()
            program = subprocess.Popen(
                [sys.executable, "-m", "dangad.cli", "cancel", "--command", "Rotate"],
                cwd=self.folder,
                env=self.environment,
                stdin=terminal,
                stdout=subprocess.DEVNULL,
                stderr=terminal,
            )
            os.close(terminal)
            said = await deferToThread(os.read, main, 1000)
            self.assertEqual(
                said.decode(), "dangad: 1234 jobs match; cancel the oldest 1000? [y/N] "
            )
            os.write(main, answer)
            self.assertEqual(await deferToThread(program.wait), status)
            self.assertEqual(len(self.operations.cancelled), cancelled)
            os.close(main)

    async def test_cancel_interrupted(self) -> None:
        """Ctrl-C at the question cancels nothing."""
        main, terminal = pty.openpty()
        self.addCleanup(os.close, main)
        program = subprocess.Popen(
            [sys.executable, "-m", "dangad.cli", "cancel", "--state", "queued"],
            cwd=self.folder,
            env=self.environment,
            stdin=terminal,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
        )
        os.close(terminal)
        await deferToThread(os.read, main, 1000)
        program.send_signal(signal.SIGINT)
        self.assertEqual(await deferToThread(program.wait), -signal.SIGINT)
        self.assertEqual(self.operations.cancelled, [])

    async def test_pause(self) -> None:
        """`pause` and `resume` take commands, or stand for all, and tell what is paused now."""
        lines = "".join(f"{line}\n" for line in show_paused(PAUSED))
        self.assertEqual(await self.output("pause", "Rotate", "Thumbnail"), lines)
        self.assertEqual(await self.output("resume", "Thumbnail"), lines)
        self.assertEqual(json.loads(await self.output("pause", "--json")), PAUSED)
        await self.output("resume")
        self.assertEqual(
            self.operations.paused,
            [
                ("pause", ["Rotate", "Thumbnail"]),
                ("resume", ["Thumbnail"]),
                ("pause", None),
                ("resume", None),
            ],
        )

    async def test_shutdown(self) -> None:
        """`shutdown` says how the server stops, and does not wait for it."""
        for options, now in ([], False), (["--now"], True):
            lines = show_shutdown({"now": now})
            self.assertEqual(await self.output("shutdown", *options), f"{lines[0]}\n")
        self.assertEqual(json.loads(await self.output("shutdown", "--json")), {"now": False})
        self.assertEqual(self.operations.shutdowns, [False, True, False])

    async def test_scale(self) -> None:
        """`scale` takes one number or two, and says what holds now."""
        self.assertEqual(await self.output("scale", "3"), "from now on 3 workers\n")
        output = await self.output("--control", "dangad.control", "scale", "--json", "2", "5")
        self.assertEqual(json.loads(output), {"min": 2, "max": 5})
        self.assertEqual((self.operations.wanted, self.operations.forced), ([(3, 3), (2, 5)], []))
        await self.output("scale", "--force", "900")
        self.assertEqual(self.operations.forced, [(900, 900)])

    async def test_want(self) -> None:
        """`want` is the old name of `scale`: it does the same, and says so once."""
        said = "dangad: `dangad want` is called `dangad scale` now\n"
        done = await self.start("want", "2", "5", "--json", "--force")
        self.assertEqual((done.stdout, done.stderr.decode()), (b'{"min": 2, "max": 5}\n', said))
        self.assertEqual(done.returncode, 0)
        self.assertEqual(self.operations.forced, [(2, 5)])
        self.assertNotIn("want", (await self.output("--help")).split())

    async def test_stack(self) -> None:
        """`stack` prints where a job is."""
        self.assertEqual(await self.output("stack", str(JOB)), STACK)
        output = await self.output("stack", str(JOB), "--json")
        self.assertEqual(json.loads(output), {"job": JOB, "stack": STACK})

    async def test_waiting(self) -> None:
        """`reload` waits for its end, and tells what workers there are then.

        So does `drain` for the accepted jobs, which it counts.
        """
        stories: tuple[tuple[str, Any, Any, Any, list[str]], ...] = (
            ("reload", self.operations.reloads, None, STATUS, show_reloaded(STATUS)),
            ("drain", self.operations.drains, COUNTERS, COUNTERS, show_counters(COUNTERS)),
        )
        for name, waiting, result, document, lines in stories:
            for option, shown in (([], "".join(lines)), (["--json"], json.dumps(document))):
                running = self.start(name, *option)
                await until(lambda waiting=waiting: waiting)
                self.assertFalse(running.called)
                waiting.pop().callback(result)
                self.assertEqual(wrote(await running).decode(), f"{shown}\n")

    @contextlib.contextmanager
    def on_terminal(self, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """The command, whose standard error is a terminal, and the other end of that."""
        main, terminal = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "dangad.cli", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
        ) as program:
            os.close(terminal)
            try:
                yield program, main
            finally:
                os.close(main)

    async def test_reload_that_waits(self) -> None:
        """On a terminal `reload` tells of an import that takes long, then of an old job."""
        with self.on_terminal("reload") as (program, main):
            await until(lambda: self.operations.reloads)
            self.operations.status_document = {**STATUS, "generation": 3}
            new = {**WORKERS[1], "pid": 4720, "generation": 3, "state": "starting"}
            self.operations.workers_document = [*WORKERS, new]
            said = (await deferToThread(os.read, main, 1000)).decode()
            self.assertRegex(
                said.strip(),
                r"dangad: the new code is being imported by worker 4720, for \d\.\d s so far; "
                "`dangad stack` cannot ask it",
            )
            self.operations.workers_document = [*WORKERS, {**new, "state": "idle"}]
            said = (await deferToThread(os.read, main, 1000)).decode()
            self.assertEqual(
                said.strip(),
                "dangad: waiting for worker 4711, which has been running Thumbnail (job 120) "
                "for 2.1 s",
            )
            self.operations.reloads.pop().callback(None)
            self.assertEqual(await deferToThread(program.wait), 0)

    async def test_drain_that_waits(self) -> None:
        """On a terminal `drain` says which jobs hold it up, and how much time is left to them."""
        with self.on_terminal("drain") as (program, main):
            said = (await deferToThread(os.read, main, 1000)).decode()
            self.assertRegex(
                said.strip(),
                r"dangad: waiting for jobs \(1 job running, \d+ waiting\); worker 4711, which has "
                r"been running Thumbnail \(job 120\) for 2.1 s; \d\.\d s of --drain left",
            )
            self.operations.drains.pop().callback(COUNTERS)
            self.assertEqual(await deferToThread(program.wait), 0)

    async def test_refusals(self) -> None:
        """What the server refuses is one line with its code, and a status that tells the kind.

        If new code does not start, that says why.
        """
        text = await self.complaint(1, "stack", "7")
        self.assertEqual(text, "NOT_RUNNING: no job 7 runs")
        text = await self.complaint(2, "scale", "5", "2", "--json")
        self.assertEqual(text, "BAD_ARGUMENTS: 5 to 2 workers make no sense")
        running = self.start("reload")
        await until(lambda: self.operations.reloads)
        self.operations.reloads.pop().errback(ReloadFailed("jobs.py:\nSyntaxError"))
        text = complained(1, await running)
        self.assertEqual(text, r"RELOAD_FAILED: jobs.py:\nSyntaxError")

    async def test_server_ends(self) -> None:
        """A server that ends before it has answered is a lost connection, with status 3."""
        running = self.start("reload")
        await until(lambda: self.operations.reloads)
        await self.factory.close()
        self.assertIn("the connection was closed", complained(3, await running))

    async def test_interrupted(self) -> None:
        """Ctrl-C ends the wait for a reload, and not the reload."""
        with subprocess.Popen(
            [sys.executable, "-m", "dangad.cli", "reload"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as running:
            await until(lambda: self.operations.reloads)
            running.send_signal(signal.SIGINT)
            self.assertEqual(running.communicate(), (b"", None))
        self.assertEqual(running.returncode, -signal.SIGINT)
        await until(lambda: not self.factory._connections)
        self.operations.reloads.pop().callback(None)

    async def test_other_versions(self) -> None:
        """What a server of another version tells is still there as JSON."""
        self.operations.status_document = {"version": "99.1"}
        self.assertIn("--json", await self.complaint(1, "status"))
        output = await self.output("status", "--json")
        self.assertEqual(json.loads(output), {"version": "99.1"})


class FilterTest(OperatorCase):
    async def test_words(self) -> None:
        """A word with a space can be written without it, for completion by a shell."""
        for words in ("--state=timed_out", "--state=timed out", "--outcome=timed-out"):
            await self.output("recent", words)
        key, outcome = {"state": "timed out"}, {"outcome": "timed out"}
        self.assertEqual([meant for meant, *_ in self.operations.asked], [key, key, outcome])

    async def test_unknown_words(self) -> None:
        """If nothing matches and the server does not know a word, this is said."""
        self.operations.jobs_document = {"total": 0, "jobs": []}
        self.operations.recent_document = []
        self.operations.cancelled_document = {"matched": 0, "results": [], "left": 0}
        named = "the server has no command 'thumbnial'; did you mean Thumbnail? `dangad comm"
        outcome = "no job has ended with 'canceld': it is no state, and no code of an error; did"
        for words, said in (
            ("jobs --command thumbnial", named),
            ("cancel --yes --command thumbnial", named),
            ("recent --command thumbnial", named),
            ("recent --outcome canceld", outcome),
            ("jobs --command Thumbnail", ""),
            ("recent --outcome lost", ""),
            ("recent --outcome TIMED_OUT", ""),
        ):
            with self.subTest(words):
                done = await self.start(*words.split())
                self.assertEqual(done.returncode, 0)
                if said:
                    self.assertTrue(done.stderr.decode().startswith(f"dangad: {said}"), done.stderr)
                else:
                    self.assertEqual(done.stderr, b"")


class WatchTest(OperatorCase):
    def watch(self, stdout: int, *words: str) -> subprocess.Popen[bytes]:
        """A process that watches."""
        return subprocess.Popen(
            [sys.executable, "-m", "dangad.cli", "watch", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )

    async def tell(self, **more: Any) -> None:
        """Tell the one who watches of events."""
        await until(lambda: self.operations.watchers)
        self.operations.watchers.pop().callback({**EVENTS, **more})

    async def test_terminal(self) -> None:
        """Events come line by line, as they happen, until Ctrl-C; those missed are counted."""
        main, terminal = pty.openpty()
        self.addCleanup(os.close, main)
        with self.watch(terminal, "--command", "Thumbnail", "--kind", "ended") as program:
            os.close(terminal)
            await self.tell()
            shown = "".join(f"{show_event(event)}\r\n" for event in EVENTS["events"])
            said = b""
            while len(said) < len(shown):
                said += await deferToThread(os.read, main, 1000)
            self.assertEqual(said.decode(), shown)
            await self.tell(events=[], missed=12)
            await until(lambda: self.operations.watchers)
            program.send_signal(signal.SIGINT)
            _, complaint = await deferToThread(program.communicate)
        self.assertEqual(complaint.decode(), "dangad: 12 events missed\n")
        self.assertEqual(program.returncode, -signal.SIGINT)
        meant = {"command": "Thumbnail"}
        self.assertEqual(
            self.operations.watched,
            [(None, meant, ["ended"]), (42, meant, ["ended"]), (42, meant, ["ended"])],
        )
        self.operations.watchers.pop().callback(EVENTS)  # nobody is there any more

    async def test_pipe(self) -> None:
        """In a pipe an event is a line of JSON; the command ends when nobody reads."""
        with self.watch(subprocess.PIPE, "--json") as program:
            assert program.stdout is not None
            await self.tell()
            lines = [await deferToThread(program.stdout.readline) for _ in EVENTS["events"]]
            self.assertEqual([json.loads(line) for line in lines], EVENTS["events"])
            program.stdout.close()
            await self.tell()
            self.assertEqual(await deferToThread(program.wait), -signal.SIGPIPE)

    async def test_server_ends(self) -> None:
        """Who watches is told when the server ends."""
        with self.watch(subprocess.PIPE) as program:
            await until(lambda: self.operations.watchers)
            await self.factory.close()
            _, complaint = await deferToThread(program.communicate)
        self.assertIn(b"the connection was closed", complaint)
        self.assertEqual(program.returncode, 3)

    async def test_server_stops(self) -> None:
        """After an orderly stop, one line says so, and all is well.

        The last answer tells of it. If it was lost, the server was known to drain.
        """
        for state in ("stopped", "draining"):
            with self.watch(subprocess.PIPE) as program:
                await self.tell(state=state)
                if state == "draining":
                    await until(lambda: self.operations.watchers)
                    await self.factory.close()
                shown, complaint = await deferToThread(program.communicate)
            lines = [show_event(event) for event in EVENTS["events"]]
            self.assertEqual(shown.decode().splitlines(), lines)
            self.assertEqual(complaint, b"dangad: the server has stopped\n")
            self.assertEqual(program.returncode, 0)


class ConnectingTest(OperatorCase):
    async def test_where(self) -> None:
        """--control goes before $DANGAD_CONTROL, and that before dangad.control; all take paths."""
        moved = os.path.join(self.folder, "moved")
        os.rename(self.socket, moved)
        self.addCleanup(os.rename, moved, self.socket)  # where it is removed from in the end
        scale = ["scale", "1", "--json"]
        await self.output(*scale, "--control", f"unix:{moved}", DANGAD_CONTROL="/nowhere")
        await self.output("--control", "moved", *scale)
        await self.output(*scale, DANGAD_CONTROL="moved")
        self.assertEqual(len(self.operations.wanted), 3)
        text = await self.complaint(3, *scale)
        cannot = (
            "cannot connect to unix:dangad.control: no server listens there now: "
            "it does not run, is stopping, or is elsewhere"
        )
        say = "say where operators connect by --control or $DANGAD_CONTROL"
        self.assertEqual(text, f"{cannot}; {say}")

    async def test_wrong_door(self) -> None:
        """Who asks operators' things where clients connect, or the other way, is told so."""
        text = await self.complaint(2, "commands", "--connect", "dangad.control")
        self.assertIn("unix:dangad.control is where operators connect; --connect", text)

    async def test_stock_amp(self) -> None:
        """An AMP client of Twisted's own can be an operator, and gets the declared errors."""
        operator = await connectProtocol(UNIXClientEndpoint(reactor, self.socket), amp.AMP())
        try:
            answer = await operator.callRemote(commands.Status)
            self.assertEqual(json.loads(answer["document"]), STATUS)
            self.assertEqual(await operator.callRemote(commands.Scale, min=1, max=2), {})
            with self.assertRaises(BadArguments):
                await operator.callRemote(commands.Scale, min=2, max=1)
            with self.assertRaises(NotRunning):
                await operator.callRemote(commands.Stack, job=7)
            reload = operator.callRemote(commands.Reload)
            await until(lambda: self.operations.reloads)
            self.operations.reloads.pop().errback(ReloadFailed("broken"))
            with self.assertRaisesRegex(ReloadFailed, "broken"):
                await reload
        finally:
            operator.transport.abortConnection()
            await until(lambda: operator.transport is None or not self.factory._connections)

    async def test_descriptors_do_not_leak(self) -> None:
        """Descriptors that an operator sends over the socket are closed, and the connection."""
        with socket.socket(socket.AF_UNIX) as operator:
            operator.connect(self.socket)
            await until(lambda: self.factory._connections)
            before = len(os.listdir("/proc/self/fd"))
            socket.send_fds(operator, [request(commands.Scale.commandName)], [0, 1])
            await until(lambda: not self.factory._connections)
        await until(lambda: len(os.listdir("/proc/self/fd")) == before - 2)  # both ends


class UsageTest(SynchronousTestCase):
    def test_wrong_usage(self) -> None:
        """A wrong command line is noticed before there is a connection."""
        for words in (
            "scale",
            "scale x",
            "scale 1 2 3",
            "stack",
            "stack all",
            "job",
            "job x",
            "jobs --state done",
            "jobs --sort size",
            "jobs --limit 0",
            "jobs --limit 1001",
            "jobs --older-than soon",
            "recent --older-than -5m",
            "cancel",
            "cancel 7 --command Rotate",
            "cancel x",
            "watch --kind nothing",
            "shutdown later",
            "status now",
            "status --connect x",
            "call Echo --control x",
            "drain --raw x",
        ):
            complaint = io.StringIO()
            with contextlib.redirect_stderr(complaint):
                self.assertEqual(cli.main(words.split()), 2)
            see = f"; see dangad {' '.join(words.split()[:1])}"
            self.assertRegex(complaint.getvalue(), rf"^dangad: .*{see}( Echo)? --help\n$")


class PagesTest(SynchronousTestCase):
    def test_documents(self) -> None:
        """The documents in the reference are those that the tests tell, so of the right shape."""
        page = (REFERENCE / "control.md").read_text()
        shown = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        self.assertEqual(
            [json.loads(each) for each in shown],
            [
                STATUS,
                WORKERS,
                DEATHS,
                JOBS,
                RECENT,
                DETAIL,
                COMMANDS,
                CLIENTS,
                EVENTS,
                CONFIG,
                CANCELLED,
                PAUSED,
                COUNTERS,
            ],
        )

    def test_commands(self) -> None:
        """The reference has every command and every limit of the endpoint."""
        page = (REFERENCE / "control.md").read_text()
        for name in NAMES:
            self.assertIn(f"\n## dangad.control.{name}\n", page)
        for limit in (MAX_CONNECTIONS, MAX_WAITING, MAX_REQUEST):
            self.assertIn(f" {limit:,} ", page)

    def test_examples(self) -> None:
        """What the page on the command line shows is what the commands print."""
        self.patch(time, "localtime", time.gmtime)
        page = (REFERENCE / "command-line.md").read_text()
        examples = dict(
            re.findall(
                r"^\$ dangad (\w+)(?: [ \w'-]*)?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
            )
        )
        for name, lines in (
            ("status", show_status(STATUS)),
            ("workers", show_workers(WORKERS)),
            ("deaths", show_deaths(DEATHS)),
            ("jobs", show_jobs(JOBS)),
            ("recent", show_recent(RECENT)),
            ("job", show_job(DETAIL)),
            ("rates", show_rates(RATES)),
            ("clients", show_clients(CLIENTS)),
            ("cancel", show_cancelled(CANCELLED)),
            ("pause", show_paused(PAUSED)),
            ("watch", [show_event(event) for event in EVENTS["events"]]),
            ("scale", show_scaled({"min": 2, "max": 5})),
            ("stack", show_stack({"stack": STACK})),
            ("reload", show_reloaded(STATUS)),
            ("drain", show_counters(COUNTERS)),
        ):
            self.assertEqual(examples[name], "".join(f"{line}\n" for line in lines))
