"""The operators' subcommands against a real server: what they see, and what they do to it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from dangad.operators.jobviews import LAST_LINES
from dangad.wire import boxes
from tests.blockingpeer import BlockingPeer
from tests.twistdserver import ROOT, TextServer, text_server, wait_for
from tests.unit.server.test_server import request
from tests.warmcommand import WarmCommand, complained, wrote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


SLEEPS = b"import time; time.sleep(600)"
FAST = 5.0
"""Seconds within which jobs are answered, whatever operators do; usually it is a thousandth."""

server = text_server()


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmCommand]:
    """A process for all runs of the command."""
    command = WarmCommand()
    yield command
    command.close()


class Shell:
    """Runs ``dangad`` in the folder of a server."""

    def __init__(self, server: TextServer, warm: WarmCommand) -> None:
        self._server = server
        self._warm = warm
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DANGAD_")
        } | {"PYTHONPATH": str(ROOT)}

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """What the command did."""
        return self._warm.run(*words, folder=self._server.folder, environment=self.environment)

    def text(self, *words: str) -> str:
        """What it wrote for people."""
        return wrote(self.run(*words)).decode()

    def document(self, *words: str) -> Any:
        """The document that it wrote."""
        return json.loads(wrote(self.run(*words, "--json")))

    def refused(self, *words: str, status: int = 1) -> str:
        """The one line in which it complained."""
        return complained(status, self.run(*words))


@pytest.fixture
def shell(server: TextServer, warm: WarmCommand) -> Shell:
    """The command, where the server is."""
    return Shell(server, warm)


@pytest.fixture
def peer(server: TextServer) -> Iterator[BlockingPeer]:
    """A client, whose jobs end with the test."""
    with server.connect() as connection:
        yield connection


def code_of(answer: dict[bytes, bytes]) -> bytes | None:
    """The code of an error; None for a result."""
    return answer.get(boxes.ERROR_CODE)


def test_job(shell: Shell, peer: BlockingPeer) -> None:
    """A job is seen while it runs and afterwards: its output, its error and its traceback."""
    peer.ask(b"Python", code=b"print('begun', flush=True); " + SLEEPS)
    [job] = wait_for(lambda: shell.document("jobs", "--state", "running")["jobs"])
    wait_for(lambda: shell.document("job", str(job["id"]))["output"] == ["begun"])
    text = shell.text("job", str(job["id"]))
    assert "state     running" in text
    assert "last output:\n  begun\n" in text
    assert str(job["id"]) in shell.text("jobs")
    assert shell.document("workers")[0]["job"]["id"] == job["id"]
    assert 'File "<job>"' in shell.text("stack", str(job["id"]))
    results = shell.document("cancel", str(job["id"]))["results"]
    assert results == [{"id": job["id"], "command": "Python", "result": "stopping"}]
    assert code_of(peer.answer(b"1")) == b"CANCELLED"
    again = shell.run("cancel", str(job["id"]), "999999", "--json")
    assert [each["result"] for each in json.loads(again.stdout)["results"]] == [
        "ended",
        "not found",
    ]
    assert (again.returncode, again.stderr) == (1, b"")
    code = b"for n in range(50): print('line', n)\nraise ValueError('\x1b[2J')"
    assert code_of(peer.call(b"Python", code=code)) == b"JOB_FAILED"
    failed = shell.document("recent", "--outcome", "JOB_FAILED", "--limit", "1")[0]
    detail = shell.document("job", str(failed["id"]))
    assert detail["output"] == [f"line {number}" for number in range(50 - LAST_LINES, 50)]
    assert detail["traceback"].startswith("Traceback (most recent call last):\n")
    assert detail["traceback"].endswith("ValueError: \\x1b[2J")
    assert {key for key, value in failed.items() if detail[key] != value} <= {"ended"}
    assert abs(detail["ended"] - failed["ended"]) < 0.1  # the wall clock was read twice
    assert "\x1b" not in shell.text("job", str(failed["id"]))
    assert "CANCELLED" in shell.text("recent", "--state", "cancelled")
    assert shell.refused("job", "999999").startswith("NOT_FOUND: no job 999999 waits, runs,")


def test_lists(shell: Shell, peer: BlockingPeer) -> None:
    """What waits is listed by filters, in any order; clients and commands have their numbers."""
    peer.ask(b"Python", code=SLEEPS)
    for number in range(5):
        peer.ask(b"Limited" if number % 2 else b"Python", code=b"out = 1", _priority=b"low")
    wait_for(lambda: shell.document("status")["jobs"]["waiting"] == 5)
    status = shell.document("status")
    assert status["backlog"] == {"high": 0, "normal": 0, "low": 5}
    assert 0 <= status["oldest_wait"] < 60
    assert "oldest wait" in shell.text("status")
    limited = shell.document("jobs", "--command", "Limited", "--state", "queued")
    assert limited["total"] == 2
    assert shell.document("jobs", "--client", f"process {os.getpid()} ")["total"] == 6
    assert shell.document("jobs", "--older-than", "1h") == {"total": 0, "jobs": []}
    page = shell.run("jobs", "--limit", "2", "--sort", "-command")
    assert page.stderr == b"dangad: 2 of 6 jobs; --limit N and --offset N show others\n"
    [client] = [each for each in shell.document("clients")["clients"] if each["running"]]
    assert (client["waiting"], client["held"]) == (5, False)
    assert client["client"] in shell.text("clients")
    rates = {each["command"]: each for each in shell.document("rates")["commands"]}
    assert (rates["Python"]["running"], rates["Limited"]["waiting"]) == (1, 2)
    assert "Limited" in shell.text("rates", "--over", "15m")
    cancelled = shell.document("cancel", "--command", "Limited", "--yes")
    assert [each["result"] for each in cancelled["results"]] == ["cancelled"] * 2
    assert cancelled["matched"] == 2
    assert shell.document("cancel", "--client", "process", "--yes")["left"] == 0
    assert {code_of(peer.answer(b"%d" % tag)) for tag in range(1, 7)} == {b"CANCELLED"}
    assert shell.text("cancel", "--command", "Limited", "--yes") == "no job matches\n"


def test_pause(shell: Shell, peer: BlockingPeer) -> None:
    """Jobs of a paused command wait, and others do not; after the end of the pause they run."""
    assert shell.text("pause", "Limited") == "paused: Limited\n"
    paused = peer.ask(b"Limited", code=b"out = 1")
    assert code_of(peer.call(b"Python", code=b"out = 1")) is None
    [waiting] = shell.document("jobs")["jobs"]
    assert (waiting["command"], waiting["paused"]) == ("Limited", True)
    text = f"NOT_RUNNING: job {waiting['id']} is paused, and has no stack before it starts"
    assert shell.refused("stack", str(waiting["id"])) == text
    assert "paused" in shell.text("status")
    assert shell.document("jobs", "--state", "paused")["total"] == 1
    assert shell.text("pause") == "paused: all commands\n"
    other = peer.ask(b"Python", code=b"out = 2")
    assert shell.document("resume", "Limited") == {"all": True, "commands": []}
    wait_for(lambda: shell.document("jobs")["total"] == 2)
    assert shell.text("resume") == "paused: nothing\n"
    assert [code_of(peer.answer(tag)) for tag in (paused, other)] == [None, None]
    text = shell.refused("pause", "Limitd", status=2)
    expected = "BAD_ARGUMENTS: the server has no command 'Limitd'; did you mean Limited?"
    assert text == expected
    assert shell.refused("resume", "Limitd", status=2) == expected


def test_order(server: TextServer, peer: BlockingPeer) -> None:
    """Those who watch are told of an order before they are told what it lets happen."""
    with BlockingPeer(f"{server.folder}/dangad.control") as operator:

        def tell(name: bytes, **words: bytes) -> Any:
            return json.loads(operator.call(b"dangad.control." + name, **words)[b"document"])

        peer.call(b"Python", code=b"out = 1")  # so a worker is ready
        tell(b"Pause")
        waiting = peer.ask(b"Python", code=b"out = 1")
        wait_for(lambda: tell(b"Jobs")["total"] == 1)
        watch = operator.ask(b"dangad.control.Watch", kinds=b"started,resumed")
        tell(b"Resume")
        assert code_of(peer.answer(waiting)) is None
        events = json.loads(operator.answer(watch)[b"document"])["events"]
        assert [event["kind"] for event in events] == ["resumed", "started"]


def test_watch_to_the_end(warm: WarmCommand, tmp_path: Path) -> None:
    """Whoever watches an orderly stop sees all events to the end, and ends with success."""
    server = TextServer(str(tmp_path))
    shell = Shell(server, warm)
    program = subprocess.Popen(
        [sys.executable, "-m", "dangad.cli", "watch", "--json"],
        cwd=server.folder,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert program.stdout is not None
        while not select.select([program.stdout], [], [], 0.2)[0]:  # until it has asked
            shell.run("call", "Python", "code=out = 1")
        shell.run("drain")
        shown, complaint = program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait()
        server.stop()
    assert complaint == b"dangad: the server has stopped\n"
    assert program.returncode == 0
    assert json.loads(shown.splitlines()[-1])["kind"] == "worker gone"


def test_watch(server: TextServer, shell: Shell, peer: BlockingPeer) -> None:
    """On a terminal, events of the chosen kinds come as they happen, line by line."""
    main, terminal = pty.openpty()
    words = ("watch", "--kind", "ended", "--kind", "worker gone", "--command", "Python")
    program = subprocess.Popen(
        [sys.executable, "-m", "dangad.cli", *words],
        cwd=server.folder,
        env=shell.environment,
        stdout=terminal,
    )
    try:
        os.close(terminal)
        said = b""
        while not said:  # at first the command may not have asked yet
            peer.call(b"Python", code=b"raise Declared('\x1b]0;x\x07')")
            peer.call(b"Limited", code=b"out = 1")
            if select.select([main], [], [], 0.2)[0]:
                said = os.read(main, 10_000)
        line = said.splitlines()[0].decode()
        assert line.isprintable()
        assert "ended           job " in line
        assert "Python  failed  worker " in line
        assert line.endswith(r"DECLARED: \x1b]0;x\x07")
        assert b"Limited" not in said
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == -signal.SIGINT
    finally:
        program.kill()
        program.wait()
        os.close(main)


def control(server: TextServer) -> socket.socket:
    """A connection of an operator's."""
    operator = socket.socket(socket.AF_UNIX)
    operator.settimeout(60)
    operator.connect(f"{server.folder}/dangad.control")
    return operator


def test_floods(server: TextServer, shell: Shell, peer: BlockingPeer) -> None:
    """Operators who flood the server, and read nothing, slow no job and no other operator."""
    names = (b"Status", b"Jobs", b"Recent", b"Commands", b"Clients", b"Watch")
    flood = b"".join(request(b"dangad.control." + name, b"1") for name in names * 200)
    operators = [control(server) for _ in range(5)]
    try:
        for operator in operators:
            operator.setblocking(False)
            sent = 0
            while sent < len(flood):
                try:
                    sent += operator.send(flood[sent:])
                except BlockingIOError:
                    break  # it is not read any more
        longest = 0.0
        for _ in range(100):
            began = time.monotonic()
            assert code_of(peer.call(b"Python", code=b"out = 1")) is None
            longest = max(longest, time.monotonic() - began)
        assert longest < FAST
        assert shell.document("status")["state"] == "running"
        assert shell.document("jobs")["total"] == 0
    finally:
        for operator in operators:
            operator.close()


@pytest.mark.parametrize("now", [False, True])
def test_shutdown(tmp_path: Any, warm: WarmCommand, now: bool) -> None:
    """`shutdown` lets running jobs end, and with --now it does not; the server ends well."""
    server = TextServer(os.fspath(tmp_path))
    shell = Shell(server, warm)
    with server.connect() as peer:
        code = SLEEPS if now else b"import time; time.sleep(1); out = 7"
        tag = peer.ask(b"Python", code=code)
        wait_for(lambda: shell.document("status")["jobs"]["running"] == 1)
        began = time.monotonic()
        shell.text("shutdown", *["--now"] * now)
        # The worker of a job that is not waited for is killed: either may be noticed first.
        ends = (b"SHUTTING_DOWN", b"WORKER_LOST") if now else (None,)
        assert code_of(peer.answer(tag)) in ends
    server.process.wait(60)
    if now:
        assert time.monotonic() - began < 30
        assert "stopping at once" in server.log()
    assert ("stopping: " in server.log()) is not now
    assert shell.refused("status", status=3)
    server.stop()
