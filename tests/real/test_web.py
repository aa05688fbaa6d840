"""The page, metrics and health of a real server, over the loopback and over a UNIX socket."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.otheruser import NOBODY, connect_as, needs_root
from tests.real.test_twistd import TwistdCase
from tests.twistdserver import PATIENCE, wait_for
from tests.webserver import UnixConnection, WebServer, ask

SLEEP = b"import time; time.sleep(60)"
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    """A server with two workers, whose page may change things."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        server = WebServer(folder, "--max-workers=2", "--drain=2", "--web-actions")
        yield server
        server.stop()


def read_until(answer: http.client.HTTPResponse, text: str) -> str:
    """Read an answer that does not end, up to some text."""
    found = ""
    while text not in found:
        line = answer.readline().decode()
        assert line, f"the stream ended: {found}"
        found += line
    return found


def test_pages(web: WebServer) -> None:
    """Every page is there, and names the server's own things."""
    with web.connect() as peer:
        peer.call(b"Python", code=b"print('<b>')\nout = 7")
    for path in ("/", "/jobs", "/jobs?state=ended", "/commands", "/workers", "/clients"):
        status, text = web.get(path)
        assert status == 200, path
        assert text.startswith("<!DOCTYPE html>")
    assert "Python" in web.get("/jobs?state=ended")[1]


def test_status(web: WebServer) -> None:
    """The status is that of the process."""
    assert web.status()["pid"] == web.process.pid


def test_health(web: WebServer) -> None:
    """A server that works says so."""
    assert web.get("/health") == (200, "ok\n")
    assert web.get("/ready") == (200, "ok\n")


def test_rebinding(web: WebServer) -> None:
    """A page of another site, whose name leads here, sees nothing."""
    status, text = web.get("/status.json", Host=f"evil.example:{web.port}")
    assert status == 421
    assert "workers" not in text


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is in Debian's package prometheus")
def test_metrics(web: WebServer) -> None:
    """Prometheus understands what a real server tells, and its check finds nothing."""
    with web.connect() as peer:
        peer.call(b"Python", code=b"")
        peer.call(b"Unknown", code=b"")
    status, text = web.get("/metrics")
    assert status == 200
    assert "dangad_workers{" in text
    assert "Unknown" not in text
    checked = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_live(web: WebServer) -> None:
    """An open page is told of a job that starts, and of its end."""
    visit = web.visit()
    with contextlib.closing(visit), web.connect() as peer:
        visit.request("GET", "/live/workers")
        answer = visit.getresponse()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        go = f"{web.folder}/go"
        code = f"import os, time\nwhile not os.path.exists({go!r}): time.sleep(0.01)"
        tag = peer.ask(b"Python", code=code.encode())
        read_until(answer, ">busy<")
        with open(go, "w"):
            pass
        peer.answer(tag)
        idle = read_until(answer, "\n\n")
        while ">busy<" in idle:
            idle = read_until(answer, "\n\n")


def test_slow_reader(web: WebServer) -> None:
    """A page that does not read costs no memory to speak of, and no job waits for it."""
    visits = [web.visit() for _ in range(20)]
    try:
        for visit in visits:
            visit.request("GET", "/live/")
        with web.connect() as peer:
            for _ in range(50):
                peer.call(b"Python", code=b"")
        assert web.get("/health")[0] == 200
    finally:
        for visit in visits:
            visit.close()


def test_order(web: WebServer) -> None:
    """An order of the page is carried out and logged; the same from another site is not."""
    token = re.search(r'name="token" value="([^"]+)"', web.get("/workers")[1])
    assert token is not None
    body = f"token={token[1]}&min=1&max=2&back=/workers"

    def order(origin: str) -> int:
        visit = web.visit()
        with contextlib.closing(visit):
            kind = "application/x-www-form-urlencoded"
            headers = {"Origin": origin, "Content-Type": kind, "Host": f"localhost:{web.port}"}
            visit.request("POST", "/do/scale", body, headers)
            return visit.getresponse().status

    assert order("http://evil.example") == 403
    assert "operator, on the page" not in web.log()
    assert order(web.address) == 303
    assert web.status()["workers"]["min"] == 1
    assert "operator, on the page: Scale" in web.log()


@needs_root
def test_other_user(web: WebServer) -> None:
    """Another user of the machine is told in HTTP that the page is not for him."""
    with connect_as(NOBODY, ("127.0.0.1", web.port)) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while data := client.recv(4096):
            received += data
    assert received.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert f"user {NOBODY} may not connect here".encode() in received


def test_socket() -> None:
    """A page on a UNIX socket is its owner's alone; a prefix is part of its links."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/dangad.web"
        server = WebServer(folder, "--web-prefix=/ops/", web=f"unix:{path}")
        try:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            status, text = ask(UnixConnection(path), "GET", "/ops/")
            assert status == 200
            assert 'href="/ops/jobs"' in text
            assert ask(UnixConnection(path), "POST", "/ops/do/reload")[0] == 403
        finally:
            server.stop()
        assert not os.path.exists(path)


def test_stop() -> None:
    """While the server drains, health says so; an open page does not delay its end."""
    with tempfile.TemporaryDirectory() as folder:
        server = WebServer(folder, "--drain=60")
        visit = server.visit()
        with contextlib.closing(visit), server.connect() as peer:
            visit.request("GET", "/live/")
            visit.getresponse()
            go = f"{folder}/go"
            code = f"import os, time\nwhile not os.path.exists({go!r}): time.sleep(0.01)"
            tag = peer.ask(b"Python", code=code.encode())
            wait_for(lambda: server.status()["jobs"]["running"])
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: server.get("/health")[0] == 503)
            assert "draining" in server.get("/health")[1]
            with open(go, "w"):
                pass
            peer.answer(tag)
            server.process.wait(PATIENCE)
        server.stop()


def test_imports() -> None:
    """A server without a page does not import what the page needs."""
    program = (
        "import sys, dangad.tap, dangad.service\n"
        "found = {'twisted.web', 'prometheus_client', 'dangad.web'} & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


class OptionTests(TwistdCase):
    def assert_refused(self, says: str, *options: str) -> None:
        """The server does not start, and says why in one line."""
        done = self.run_twistd("-n", "dangad", *options)
        self.assertEqual(done.returncode, 1)
        self.assertIn(says, done.stderr.splitlines()[-1])

    def test_beyond(self) -> None:
        """A page that other machines could reach needs a word, and can change nothing even so."""
        self.assert_refused("or pass --insecure", "--web=tcp:7004")
        self.assert_refused(
            "--web-actions is for UNIX sockets and the loopback alone",
            "--web=tcp:7004",
            "--insecure",
            "--web-actions",
        )

    def test_orders_of_anybody(self) -> None:
        """A page that every user of the machine may open can change nothing."""
        for endpoint in (
            "tcp:7004:interface=127.0.0.1:auth=none",
            "unix:w.sock:mode=666",
            "haproxy:tcp:7004:interface=127.0.0.1:auth=none",
        ):
            with self.subTest(endpoint):
                says = "every user of this machine could give orders: leave out --web-actions"
                self.assert_refused(says, f"--web={endpoint}", "--web-actions")

    def test_not_valid(self) -> None:
        """Mistakes are told by the option's name."""
        self.assert_refused("--web-actions is for the page of --web", "--web-actions")
        self.assert_refused("--web 7004: for a TCP port, write tcp:7004", "--web=7004")
        self.assert_refused("--web-prefix x: not a path like /dangad", "--web-prefix=x")
        self.assert_refused("--health-oldest -1: not a number of seconds", "--health-oldest=-1")

    def test_same_socket(self) -> None:
        """The page cannot have the socket of clients or operators."""
        self.assert_refused("name the same socket", "--web=unix:dangad.control")

    def test_status_json(self) -> None:
        """The page tells the status in the words of `dangad status --json`."""
        path = str(self.folder / "web")
        self.start_twistd("--listen=unix:dangad.sock", f"--web=unix:{path}")
        told = json.loads(ask(UnixConnection(path), "GET", "/status.json")[1])
        done = self.run_program([sys.executable, "-m", "dangad", "status", "--json"])
        self.assertEqual(set(told), set(json.loads(done.stdout)))
