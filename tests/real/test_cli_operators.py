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
    show_recent,
    show_reloaded,
    show_scaled,
    show_stack,
    show_status,
    show_workers,
)
from dangad.errors import BadArguments, NotRunning, ReloadFailed
from dangad.operators.control import MAX_CONNECTIONS, MAX_REQUEST, MAX_WAITING, ControlFactory
from dangad.wire import commands
from tests.fakeoperations import (
    CONFIG,
    COUNTERS,
    JOB,
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
    from twisted.internet.defer import Deferred

reactor: Any = _reactor

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs" / "reference"
NAMES = ("status", "workers", "recent", "config", "scale", "pardon", "stack", "reload", "drain")


class ShowingTest(SynchronousTestCase):
    def test_no_workers(self) -> None:
        """A status says why there are no workers, and how a reload failed."""
        status = copy.deepcopy(STATUS)
        status["no_workers"] = "jobs.py does not import\x1b"
        status["reload"] = {"state": "failed", "reason": "SyntaxError"}
        lines = show_status(status)
        self.assertIn(r"no workers   jobs.py does not import\x1b", lines)
        self.assertIn("generation   2 (reload failed: SyntaxError)", lines)
        self.assertFalse([line for line in show_status(STATUS) if "no workers" in line])

    def test_never_reloaded(self) -> None:
        """Of a server that was never reloaded nothing is said of reloads."""
        status = {**STATUS, "generation": 1, "reload": {"state": "none", "reason": ""}}
        self.assertIn("generation   1", show_status(status))

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
            ("recent", RECENT, show_recent(RECENT)),
            ("config", CONFIG, show_config(CONFIG)),
        ):
            self.assertEqual(await self.output(name), "".join(f"{line}\n" for line in lines))
            output = await self.output(name, "--json")
            self.assertEqual((json.loads(output), output.count("\n")), (document, 1))

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

    async def test_reload_that_waits(self) -> None:
        """On a terminal `reload` says for which job of an old worker it waits."""
        self.operations.status_document = {**STATUS, "generation": 3}
        main, terminal = pty.openpty()
        self.addCleanup(os.close, main)
        program = subprocess.Popen(
            [sys.executable, "-m", "dangad.cli", "reload"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
        )
        os.close(terminal)
        said = await deferToThread(os.read, main, 1000)
        text = (
            "dangad: waiting for worker 4711, which has been running Thumbnail (job 120) for 2.1 s"
        )
        self.assertEqual(said.decode().strip(), text)
        self.operations.reloads.pop().callback(None)
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
            [json.loads(each) for each in shown], [STATUS, WORKERS, RECENT, CONFIG, COUNTERS]
        )

    def test_commands(self) -> None:
        """The reference has every command and every limit of the endpoint."""
        page = (REFERENCE / "control.md").read_text()
        for name in NAMES:
            self.assertIn(f"\n## dangad.control.{name.title()}\n", page)
        for limit in (MAX_CONNECTIONS, MAX_WAITING, MAX_REQUEST):
            self.assertIn(f" {limit:,} ", page)

    def test_examples(self) -> None:
        """What the page on the command line shows is what the commands print."""
        self.patch(time, "localtime", time.gmtime)
        page = (REFERENCE / "command-line.md").read_text()
        examples = dict(
            re.findall(r"^\$ dangad (\w+)[ 0-9]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        )
        for name, lines in (
            ("status", show_status(STATUS)),
            ("workers", show_workers(WORKERS)),
            ("recent", show_recent(RECENT)),
            ("scale", show_scaled({"min": 2, "max": 5})),
            ("stack", show_stack({"stack": STACK})),
            ("reload", show_reloaded(STATUS)),
            ("drain", show_counters(COUNTERS)),
        ):
            self.assertEqual(examples[name], "".join(f"{line}\n" for line in lines))
