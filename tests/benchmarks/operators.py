"""Does it matter to a client how much there is to see, and how many look?

The client is one that is active all the time. First it is alone with the server. Then there are
10,000 waiting jobs of 1,000 commands, and 10,000 clients. Then many look at all this, too: fifty
open pages, Prometheus each second, ``dangad top``, and two who watch the events, one of whom does
not read.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import boxes
from tests.benchmarks.contenders import drive_socket
from tests.benchmarks.harness import Bench, Measure, percentile
from tests.benchmarks.machine import allow_many_files, cpu_seconds, resident
from tests.benchmarks.manycommands import NAMES
from tests.benchmarks.processes import Broken, Stage
from tests.benchmarks.targets import MANY
from tests.benchmarks.watchedserver import CONTROL, SPARE_FILES, Sizes, Watched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.processes import Driver

QUIET, CROWDED = "nothing else", "much to see"
WEB = "web.sock"
PAGES = ("/", "/jobs", "/commands", "/workers", "/clients")
DOCUMENTS = ("Jobs", "Recent", "Commands", "Clients")
MEASURES = {
    "median": Measure("active client's median", "s"),
    "p99": Measure("active client's 99th percentile", "s"),
    "longest": Measure("longest turn, without the garbage collector", "s"),
    "collected": Measure("garbage collector, longest", "s"),
    "share": Measure("CPU time of the parent for those who look, each second", "s"),
    "scrape": Measure("one more scrape of `/metrics`", "s"),
    "memory": Measure("parent's memory", "B"),
    "/status.json": Measure("size of `/status.json`", "B"),
    "/metrics": Measure("size of `/metrics`", "B"),
    **{page: Measure(f"size of the page `{page}`", "B") for page in PAGES},
    **{name: Measure(f"size of the document `{name}`", "B") for name in DOCUMENTS},
}
CALLERS = 100
"""Clients whose jobs wait."""
PATIENT = 120.0
"""Seconds in which all sizes have to be there."""
TIMES = 3
"""Jobs of each command that have ended."""


def run(bench: Bench) -> None:
    """Ask the question."""
    connections = min(int(bench.size(10_000, 200)), allow_many_files() - SPARE_FILES)
    sizes = Sizes(jobs=int(bench.size(10_000, 1000)), connections=connections, workers=2, each=0)
    seconds = bench.size(8, 1)
    bench.interleave(
        int(bench.size(2, 1)),
        {name: partial(_measure, name, sizes, seconds) for name in (QUIET, CROWDED, MANY)},
    )


def _measure(name: str, sizes: Sizes, seconds: float) -> Mapping[str, float]:
    with Stage() as stage:
        web = stage.path(WEB)
        options = ("--jobs", "tests.benchmarks.manycommands", "--web", f"unix:{web}:mode=600")
        workers = sizes.workers
        with contextlib.closing(Watched(stage, sizes, workers, workers, *options)) as server:
            active = drive_socket(stage)
            active.ask("serial", jobs=200)  # warms up
            if name != QUIET:
                _crowd(server)
            audience = stage.drive_python("audience", web, stage.path(CONTROL))
            if name == MANY:
                _gather(audience)
            return _look(server, active, audience, seconds)


def _look(server: Watched, active: Driver, audience: Driver, seconds: float) -> Mapping[str, float]:
    """What the client sees, what the server does meanwhile, and the sizes of its answers."""
    server.mark()
    latencies: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        latencies += active.ask("serial", jobs=200)["latencies"]
    turns = server.turns()
    before = cpu_seconds(server.pid)
    time.sleep(seconds / 2)
    share = (cpu_seconds(server.pid) - before) / (seconds / 2)
    audience.ask("seen")
    pages = ["/status.json", "/metrics", *PAGES]
    return {
        "median": percentile(latencies, 50),
        "p99": percentile(latencies, 99),
        "longest": max(turn.own - turn.collected for turn in turns),
        "collected": max(turn.collected for turn in turns),
        "share": share,
        "scrape": audience.ask("scrape"),
        "memory": resident(server.pid),
        **audience.ask("sizes", pages=pages, documents=list(DOCUMENTS), patience=PATIENT),
    }


def _crowd(server: Watched) -> None:
    """Have many clients, and many jobs of many commands, some of which have ended."""
    with server.connect() as client:
        client.read_on()
        for number in range(TIMES * len(NAMES)):
            client.keep(_request(number))
        client.flush()
        client.wait_for_bytes(TIMES * len(NAMES) * len(boxes.answer(0, b"")))
    _pause_all(server)
    each = server.sizes.jobs // CALLERS
    for caller in range(CALLERS):
        client = server.connect()
        for number in range(caller * each, (caller + 1) * each):
            client.keep(_request(number))
        client.flush()
    others = server.sizes.connections - CALLERS
    crowd = server.stage.drive_python("crowd", server.path)
    if crowd.ask("gather", idle=others)["refused"]:
        raise Broken("not all connections were taken")
    server.wait_until(
        lambda status: (
            status["connections"] > others and status["jobs"]["waiting"] == CALLERS * each
        )
    )


def _request(number: int) -> bytes:
    name = NAMES[number % len(NAMES)].encode()
    return boxes.request(number, name, b"", {})


def _pause_all(server: Watched) -> None:
    """Have the jobs of the many commands wait, and no others."""
    names = [len(name).to_bytes(2, "big") + name.encode() for name in NAMES]
    with server.operator(b"dangad.control.Pause", commands=b"".join(names)) as operator:
        operator.receive_box()


def _gather(audience: Driver) -> None:
    """Have everybody look."""
    audience.ask("pages", views=list(PAGES), each=10)
    audience.ask("prometheus", interval=1.0)
    audience.ask("watch")
    audience.ask("watch_without_reading")
    audience.ask("top")
