"""With very much to see, and many who look, every answer is bounded, and clients are served."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.protocols import amp

from dangad.operators.control import MAX_WAITING
from dangad.web.live import MAX_VIEWERS
from dangad.web.otherviews import MOST_CLIENTS
from dangad.wire import commands
from dangad.wire.controlwords import MOST
from tests.benchmarks.manycommands import NAMES
from tests.blockingpeer import BlockingPeer, code_of
from tests.twistdserver import wait_for
from tests.webserver import WebServer

JOBS = 3 * MOST
CLIENTS = MOST_CLIENTS + 100
PAGES = ("/", "/jobs", "/jobs?sort=-command", "/commands", "/workers", "/clients")
PAGE_BYTES = 150_000
"""More than a page of a hundred rows has, and less than one of a thousand."""


def ask(peer: BlockingPeer, command: type[amp.Command], **arguments: bytes) -> Any:
    """The document that an operator is told."""
    answer = peer.call(command.commandName, **arguments)
    assert code_of(answer) == "ok", answer
    return json.loads(command.parseResponse(answer, None)["document"])


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    """A server with many clients, and many jobs of many commands, all of which wait."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = WebServer(
            folder,
            "--jobs=tests.benchmarks.manycommands",
            "--max-workers=1",
            "--drain=1",
            f"--max-queued={2 * JOBS}",
            f"--max-in-flight={2 * JOBS}",
        )
        stack.callback(server.stop)
        with operator(server) as peer:
            names = [name.encode() for name in NAMES]
            listed = b"".join(len(name).to_bytes(2, "big") + name for name in names)
            ask(peer, commands.Pause, commands=listed)
        clients = [stack.enter_context(server.connect()) for _ in range(CLIENTS)]
        for number in range(JOBS):
            clients[0].ask(names[number % len(names)], data=b"")
        wait_for(lambda: server.status()["jobs"]["waiting"] == JOBS)
        yield server


def operator(server: WebServer) -> BlockingPeer:
    """An operator who has connected."""
    return BlockingPeer(f"{server.folder}/dangad.control")


def test_documents(web: WebServer) -> None:
    """Lists have at most a thousand entries, and say how many there are."""
    with operator(web) as peer:
        jobs = ask(peer, commands.Jobs, limit=b"%d" % MOST)
        assert (len(jobs["jobs"]), jobs["total"]) == (MOST, JOBS)
        clients = ask(peer, commands.Clients, limit=b"10")
        assert len(clients["clients"]) == 10
        assert clients["total"] >= CLIENTS
        assert len(ask(peer, commands.Commands)) <= MOST + 1
        beyond = peer.call(commands.Jobs.commandName, limit=b"%d" % (MOST + 1))
        assert code_of(beyond) == "BAD_ARGUMENTS"


def test_pages(web: WebServer) -> None:
    """Pages show parts of lists."""
    for path in PAGES:
        status, text = web.get(path)
        assert status == 200, path
        assert len(text) < PAGE_BYTES, path
    assert f"{JOBS:,}" in web.get("/")[1]


def test_metrics(web: WebServer) -> None:
    """The label of commands has at most a thousand names and one more."""
    lines = web.get("/metrics")[1].splitlines()
    waiting = [line for line in lines if line.startswith("dangad_jobs_waiting{")]
    assert MOST <= len(waiting) <= MOST + 1
    assert sum(float(line.rpartition(" ")[2]) for line in waiting) == JOBS


def test_many_look(web: WebServer) -> None:
    """With as many who look as may be, all are told what is new, and jobs are done."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(operator(web))
        for _ in range(MAX_WAITING):
            deaf.ask(commands.Watch.commandName)
        answers = []
        for number in range(MAX_VIEWERS):
            visit = stack.enter_context(contextlib.closing(web.visit()))
            visit.request("GET", f"/live{PAGES[number % len(PAGES)]}")
            answers.append(visit.getresponse())
        assert web.get("/live/")[0] == 503
        assert "dangad_build_info" in web.get("/metrics")[1]
        with web.connect() as client:
            for _ in range(20):
                assert code_of(client.call(b"Python", code=b"out = 1")) == "ok"
        for answer in answers:
            while not answer.readline().startswith(b"data: "):
                pass
        with operator(web) as other:
            assert ask(other, commands.Status)["jobs"]["waiting"] == JOBS
