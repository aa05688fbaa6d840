"""The page as a person sees it: in a browser, from a real server, without loading it anew."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from axe_core_python.selenium import Axe

from tests.blockingpeer import code_of
from tests.browser import Browser, browser, needs_browser
from tests.twistdserver import wait_for
from tests.webserver import WebServer

pytestmark = needs_browser

PATHS = (
    "/",
    "/jobs",
    "/jobs?state=ended",
    "/commands",
    "/commands/Python",
    "/workers",
    "/clients",
    "/calls",
)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """A browser for all tests."""
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    """A server with one worker at a time, whose page may change things."""
    with tempfile.TemporaryDirectory() as folder:
        server = WebServer(folder, "--max-workers=1", "--drain=1", "--web-actions")
        yield server
        server.stop()


class Gate:
    """A file for which jobs wait."""

    def __init__(self, server: WebServer, name: str) -> None:
        self._path = f"{server.folder}/{name}"
        self.code = (
            f"import os, time\nprint('<b>waiting</b>')\n"
            f"while not os.path.exists({self._path!r}): time.sleep(0.01)"
        ).encode()

    def open(self) -> None:
        """Let the jobs end."""
        with open(self._path, "w"):
            pass


def test_lives(web: WebServer, window: Browser) -> None:
    """Jobs wait, run and end, and a worker dies and is replaced, while the page stays open."""
    window.open(f"{web.address}/")
    window.run("window.stayed = true")
    first, second = Gate(web, "first"), Gate(web, "second")
    with web.connect() as peer:
        tags = [peer.ask(b"Python", code=gate.code) for gate in (first, second)]
        window.wait_for("1", "#gauge-running .value")
        window.wait_for("1", "#gauge-waiting .value")
        window.wait_for("Python", ".tile.busy .doing")
        window.picture("overview-running")
        first.open()
        peer.answer(tags[0])
        window.wait_for("0", "#gauge-waiting .value")
        second.open()
        peer.answer(tags[1])
        window.wait_for("0", "#gauge-running .value")
        window.wait_for("idle", ".tile")

        [pid] = [each["pid"] for each in window_workers(window)]
        tag = peer.ask(b"Python", code=b"import os; os.kill(os.getpid(), 9)")
        peer.answer(tag)
        window.wait_for("WORKER_LOST", "#failures")
        wait_for(lambda: [each for each in window_workers(window) if each["pid"] != pid])
        window.wait_for("idle", ".tile")
    assert pid not in [each["pid"] for each in window_workers(window)]
    assert window.run("return window.stayed") is True
    window.picture("overview")
    assert window.complaints() == []


def window_workers(window: Browser) -> list[dict[str, str]]:
    """The workers as the overview shows them."""
    script = (
        "return [...document.querySelectorAll('.tile')].map(tile => "
        "({pid: tile.querySelector('b').textContent,"
        " state: tile.querySelector('.badge').textContent}))"
    )
    found: list[dict[str, str]] = window.run(script)
    return found


def test_paused(web: WebServer, window: Browser) -> None:
    """A command is paused by a button: its jobs wait, and every page says so."""
    window.open(f"{web.address}/commands/Python")
    window.all("form[action$=pause] button")[0].click()
    window.wait_for("Paused now: Python")
    window.open(f"{web.address}/")
    window.wait_for("paused", "#health")
    window.wait_for("paused", "#commands")
    window.run("window.stayed = true")
    with web.connect() as peer:
        tag = peer.ask(b"Python", code=b"")
        window.wait_for("1", "#gauge-waiting .value")
        window.picture("paused")
        with browser() as other:
            other.open(f"{web.address}/commands/Python")
            other.all("form[action$=resume] button")[0].click()
            other.wait_for("Nothing is paused")
        peer.answer(tag)
    window.wait_for("Everything works", "#health")
    assert window.run("return window.stayed") is True


def test_cancelled(web: WebServer, window: Browser) -> None:
    """Jobs that match a filter are cancelled by two buttons, and their clients are told."""
    with tempfile.NamedTemporaryFile(dir=web.folder) as file, web.connect() as peer:
        code = f"import os, time\nwhile os.path.exists({file.name!r}): time.sleep(0.01)".encode()
        tags = [peer.ask(b"Python", code=code) for _ in range(4)]
        wait_for(lambda: web.status()["jobs"]["waiting"])
        window.open(f"{web.address}/jobs?command=Python")
        window.wait_for("4 jobs", "#total")
        window.picture("jobs")
        window.all("#cancel-matching summary")[0].click()
        window.all("#cancel-matching button")[0].click()
        window.wait_for("The order reached 4 jobs of 4")
        window.picture("cancelled")
        assert {code_of(peer.answer(tag)) for tag in tags} == {"CANCELLED"}


def test_curves(web: WebServer, window: Browser) -> None:
    """The curves are drawn, go on by themselves, and are not replaced by updates."""
    window.open(f"{web.address}/")
    wait_for(lambda: len(window.all("#curves canvas")) == 4)
    window.run("document.querySelector('#curves canvas').marked = true")
    before = json.loads(web.get("/history.json")[1])["time"][-1]
    wait_for(lambda: json.loads(web.get("/history.json")[1])["time"][-1] > before + 2)
    assert window.run("return document.querySelector('#curves canvas').marked") is True
    assert len(window.all("#curves canvas")) == 4


def test_filter_kept(web: WebServer, window: Browser) -> None:
    """What a person writes into a form stays while the list beside it changes."""
    window.open(f"{web.address}/jobs")
    field = window.all("input[name=command]")[0]
    field.send_keys("Pyth")
    before = window.text("#health")
    wait_for(lambda: window.text("#health") != before)
    assert field.get_attribute("value") == "Pyth"
    field.send_keys("on\n")
    wait_for(lambda: "command=Python" in window.driver.current_url)


def test_hostile_name(web: WebServer, window: Browser) -> None:
    """A command that is named like markup is text."""
    with web.connect() as peer:
        peer.call(b"<script>window.harmed=1</script><img src=x onerror=window.harmed=1>")
        peer.call(b"Python", code=b"raise ValueError('<img src=x onerror=window.harmed=1>')")
    for path in ("/", "/jobs?state=ended", "/commands"):
        window.open(f"{web.address}{path}")
        wait_for(lambda: window.run("return document.readyState") == "complete")
        assert window.run("return window.harmed") is None
        assert not window.all("main img")
    assert window.complaints() == []


def test_order(web: WebServer, window: Browser) -> None:
    """A button is pressed: the order is carried out, and the next page says so."""
    window.open(f"{web.address}/workers")
    most = window.all("input[name=max]")[0]
    most.clear()
    most.send_keys("2")
    window.all("form[action$=scale] button")[0].click()
    window.wait_for("There will be 1 to 2 workers")
    window.picture("order")
    assert web.status()["workers"]["max"] == 2
    window.all("main a[href='/workers']")[0].click()
    window.wait_for("1 to 2 workers", "#total")


def test_without_scripts(web: WebServer) -> None:
    """Without JavaScript every page is a snapshot."""
    with browser(scripts=False) as plain:
        plain.open(f"{web.address}/")
        plain.wait_for("running", "#health")
        assert "idle" in plain.text(".tile")
        assert not plain.all("#curves canvas")
        assert plain.all(".gauge svg.graph")
        plain.picture("without-scripts")


def test_accessible(web: WebServer, window: Browser) -> None:
    """axe-core finds nothing serious, in light and dark."""
    with hold_job(web):
        for path in (*PATHS, "/nothing"):
            for dark in (False, True):
                window.make_dark(dark)
                window.open(f"{web.address}{path}")
                found: list[Any] = Axe().run(window.driver)["violations"]
                serious = [
                    (each["id"], each["nodes"][0]["html"])
                    for each in found
                    if each["impact"] in ("serious", "critical")
                ]
                assert not serious, f"{path}, dark: {dark}: {serious}"
    window.make_dark(False)


def test_phone(web: WebServer, window: Browser) -> None:
    """On a phone nothing but tables is wider than the page."""
    window.resize(360, 800, phone=True)
    try:
        with hold_job(web):
            for path in PATHS:
                window.open(f"{web.address}{path}")
                width = window.run("return document.documentElement.scrollWidth")
                assert width <= 360, path
            window.open(f"{web.address}/")
            wait_for(lambda: window.all("#curves canvas"))
            window.picture("phone")
    finally:
        window.resize(1280, 1400)


def test_keyboard(web: WebServer, window: Browser) -> None:
    """The first stop of the tabulator leads to the content, and the place is kept by updates."""
    window.open(f"{web.address}/")
    body = window.all("body")[0]
    body.send_keys("\ue004")  # the tabulator
    assert window.run("return document.activeElement.className") == "skip"
    with web.connect() as peer:
        peer.call(b"Python", code=b"1/0")
    window.wait_for("Python")
    window.run("document.querySelector(\"main a[href='/commands/Python']\").focus()")
    before = window.text("#health")
    wait_for(lambda: window.text("#health") != before)
    assert window.run("return document.activeElement.getAttribute('href')") == "/commands/Python"


def test_server_restarts(window: Browser) -> None:
    """A page that was open while the server was started anew goes on."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        server = WebServer(first)
        window.open(f"{server.address}/")
        window.wait_for("Everything works", "#health")
        [before] = window_workers(window)
        server.stop()
        again = WebServer(second, web=f"tcp:{server.port}:interface=127.0.0.1")
        try:
            wait_for(lambda: before["pid"] not in [each["pid"] for each in window_workers(window)])
            window.wait_for("idle", ".tile")
        finally:
            again.stop()
    window.complaints()  # that the server was away


@contextlib.contextmanager
def hold_job(web: WebServer) -> Iterator[None]:
    """A job runs, and others wait."""
    with tempfile.NamedTemporaryFile(dir=web.folder) as file, web.connect() as peer:
        code = f"import os, time\nwhile os.path.exists({file.name!r}): time.sleep(0.01)".encode()
        tags = [peer.ask(b"Python", code=code) for _ in range(4)]
        wait_for(lambda: web.status()["jobs"]["running"])
        yield
        os.unlink(file.name)
        for tag in tags:
            peer.answer(tag)
        with open(file.name, "w"):  # to be removed at its end
            pass


def write_into(window: Browser, name: str, text: str) -> None:
    """Write a text into the field of this name, in place of what is there."""
    field = window.all(f"[name='{name}']")[0]
    field.clear()
    field.send_keys(text)


def test_call(web: WebServer, window: Browser) -> None:
    """A form calls a job: progress, parts and the answer come without loading the page anew."""
    gate = Gate(web, "called")
    window.open(f"{web.address}/commands/Python")
    window.all("#call summary")[0].click()
    code = (
        "mine = current_job()\n"
        "mine.progress(1, 4, '<b>a quarter</b>')\n"
        "mine.send(b'<img src=x onerror=window.harmed=1>')\n"
        f"{gate.code.decode()}\n"
        "out = 6 * 7\n"
    )
    write_into(window, "arg.code", code)
    window.all("[name=chunks]")[0].click()
    window.picture("call-form")
    window.all("form[action$=call] button")[0].click()
    window.wait_for("25%, 1 of 4: <b>a quarter</b>", "#progress")
    window.run("window.stayed = true")
    window.wait_for("<img src=x", "#parts")
    window.picture("call-running")
    assert window.all("#live form[action$=cancel] button")
    assert window.all("[name='arg.code']")[0].get_attribute("value") == code
    assert "dangad call" in window.text("#shell")
    assert 'Python,\n        code="mine = current_job()' in window.text("#python")
    gate.open()
    window.wait_for('"out": "42"', "#answer")
    window.wait_for("done", "#lead")
    assert not window.all("#live form[action$=cancel] button")
    assert window.run("return [window.stayed, window.harmed]") == [True, None]
    window.picture("call-done")
    assert window.complaints() == []
    window.open(f"{web.address}/calls")
    window.wait_for("42", "main table")


def test_call_fails(web: WebServer, window: Browser) -> None:
    """A deadline that is none is told beside what was typed; an error of the job is shown."""
    window.open(f"{web.address}/commands/Python")
    window.all("#call summary")[0].click()
    write_into(window, "arg.code", "raise ValueError('no <i>luck</i>')")
    write_into(window, "deadline", "soon")
    window.all("form[action$=call] button")[0].click()
    window.wait_for("deadline=soon is no time", "#error")
    window.picture("call-wrong")
    assert "no <i>luck" in window.all("[name='arg.code']")[0].get_attribute("value")
    window.complaints()  # that the answer was no page
    write_into(window, "deadline", "1m")
    window.all("form[action$=call] button")[0].click()
    window.wait_for("JOB_FAILED: ValueError: no <i>luck</i>", "#error")
    assert "--deadline 60" in window.text("#shell")


def test_run_again(web: WebServer, window: Browser) -> None:
    """A job of another client that waits is run again; of one that has ended the page says no."""
    gate = Gate(web, "again")
    with web.connect() as peer:
        tags = [peer.ask(b"Python", code=gate.code) for _ in range(2)]
        tags.append(peer.ask(b"Python", code=b"out = 'twice'"))
        wait_for(lambda: web.status()["jobs"]["waiting"])
        window.open(f"{web.address}/jobs?state=queued&sort=-age")
        window.all("main tbody th a")[-1].click()
        window.all("form[action$=again] button")[0].click()
        window.wait_for("as job", "#lead")
        gate.open()
        window.wait_for("twice", "#answer")
        for tag in tags:
            peer.answer(tag)
    window.open(f"{web.address}/jobs?state=done")
    window.all("main tbody th a")[0].click()
    window.wait_for("not kept", "#again")


def test_call_without_scripts(web: WebServer) -> None:
    """Without JavaScript a call is made, and its page is a snapshot."""
    with browser(scripts=False) as plain:
        plain.open(f"{web.address}/commands/Python")
        plain.all("#call summary")[0].click()
        write_into(plain, "arg.code", "out = 1")
        plain.all("form[action$=call] button")[0].click()

        def is_answered() -> bool:
            plain.driver.refresh()
            return '"out": "1"' in plain.text("#answer")

        wait_for(is_answered)
