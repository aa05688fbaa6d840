"""Pictures of the page for the documentation: a shop's server under load, in a browser.

``python -m tests.pictures docs/how-to/web`` writes them; it takes two minutes.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.blockingpeer import BlockingPeer
from tests.browser import SCREENSHOTS, Browser, browser
from tests.twistdserver import TwistdServer

PORT = 7004
SECONDS = 90.0
"""How long the server works before the first picture."""
CLIENTS = 4
"""How many clients send jobs."""
WIDTH, HEIGHT = 1100, 1180
JOBS = '''
import os
import random
import time

from twisted.protocols import amp

from dangad import current_job, job


class NoImage(Exception):
    """The file has no image in it."""


class Thumbnail(amp.Command):
    """Make an image smaller."""

    arguments = [(b"width", amp.Integer())]
    response = []
    errors = {NoImage: b"NO_IMAGE"}


class Invoice(amp.Command):
    """Write the invoice of an order."""

    arguments = [(b"order", amp.Integer())]
    response = []


class Report(amp.Command):
    """Add up the sales of a month."""

    arguments = [(b"month", amp.Integer())]
    response = []


class Export(amp.Command):
    """Write the sales of a year as a table."""

    arguments = [
        (b"year", amp.Integer()),
        (b"columns", amp.ListOf(amp.Unicode())),
        (b"title", amp.Unicode(optional=True)),
    ]
    response = [(b"rows", amp.Integer())]


class Index(amp.Command):
    """Index a product for the search."""

    arguments = [(b"product", amp.Integer())]
    response = []


@job(Thumbnail, time_limit=30, max_running=3)
def thumbnail(width):
    time.sleep(random.expovariate(12))
    if random.random() < 0.05:
        print("reading", f"product-{random.randrange(1000)}.png")
        raise NoImage("the file is a text")
    return {}


@job(Invoice)
def invoice(order):
    time.sleep(random.expovariate(40))
    return {}


@job(Report, time_limit=60)
def report(month):
    time.sleep(random.uniform(2, 6))
    return {}


@job(Export)
def export(year, columns, title=None):
    mine = current_job()
    for number, quarter in enumerate(("first", "second", "third", "fourth", "whole"), 1):
        time.sleep(1.5)
        mine.progress(number, 5, f"the {quarter} quarter" if number < 5 else "the whole year")
        mine.send(f"{year};{quarter};{random.randrange(10_000, 99_999)}.00".encode())
    return {"rows": 5}


@job(Index, retries=1)
def index(product):
    time.sleep(random.expovariate(80))
    if random.random() < 0.002:
        os.kill(os.getpid(), 11)
    return {}
'''
COMMANDS = (
    (b"Thumbnail", "width", 12),
    (b"Invoice", "order", 10),
    (b"Index", "product", 40),
    (b"Report", "month", 1),
)
"""The commands, their arguments, and how often each is called."""


def send_jobs(path: str, end: float) -> None:
    """Be a client until that moment: send jobs in waves, and wait for them now and then."""
    chances = random.Random(threading.get_ident())
    weights = [weight for *_, weight in COMMANDS]
    with BlockingPeer(path) as peer:
        while time.monotonic() < end:
            wave = 25 if int(time.monotonic() / 20) % 2 else 8
            tags = []
            for _ in range(wave):
                [(command, argument, _)] = chances.choices(COMMANDS, weights)
                tags.append(peer.ask(command, **{argument: b"%d" % chances.randrange(1, 900)}))
            for tag in tags:
                peer.answer(tag)


def take(window: Browser, address: str) -> None:
    """Take all pictures."""
    window.resize(WIDTH, HEIGHT)
    for name, dark in (("dark", True), ("overview", False)):
        window.make_dark(dark)
        window.open(f"{address}/")
        time.sleep(3)
        window.picture(name)
    window.open(f"{address}/jobs?state=failed")
    window.all("main tbody th a")[0].click()
    time.sleep(2)
    window.resize(WIDTH, 760)
    window.picture("job")
    window.open(f"{address}/commands/Export")
    window.all("#call summary")[0].click()
    for name, typed in (("year", "2026"), ("columns", "order\ncustomer\nsum"), ("title", "Sales")):
        window.all(f"[name='arg.{name}']")[0].send_keys(typed)
    window.all("[name=chunks]")[0].click()
    window.all("form[action$=call] button")[0].click()
    window.wait_for("60%", "#progress")
    window.resize(WIDTH, 1130)
    window.picture("call")


def main(folder: str) -> None:
    """Start the server, the clients and the browser, and write the pictures to this folder."""
    os.environ[SCREENSHOTS] = folder
    with tempfile.TemporaryDirectory() as place:
        Path(place, "shop.py").write_text(JOBS)
        numbers = ("--min-workers=6", "--max-workers=6")
        web = (f"--web=tcp:{PORT}:interface=127.0.0.1", "--web-actions")
        server = TwistdServer(place, "--worker-path=.", "--jobs=shop", *numbers, *web)
        end = time.monotonic() + SECONDS + 40
        clients = [
            threading.Thread(target=send_jobs, args=(server.socket, end)) for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        try:
            time.sleep(SECONDS)
            with browser() as window:
                take(window, f"http://localhost:{PORT}")
        finally:
            for client in clients:
                client.join()
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
