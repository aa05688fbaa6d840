"""What do the page and the metrics cost the clients?

The echo jobs once with the page, of which one view is open, and whose metrics are scraped every 15
seconds; and once without a page.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.benchmarks import contenders
from tests.benchmarks.echo import WINDOW
from tests.benchmarks.harness import Bench, Contender, Measure, Running
from tests.benchmarks.machine import cpu_seconds
from tests.benchmarks.targets import WITH_PAGE
from tests.benchmarks.watchedserver import CONTROL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.processes import Stage

WITHOUT = "without a page"
WEB = "web.sock"
MEASURES = {
    "throughput": Measure("100 in flight", "1/s"),
    "parent_cpu": Measure("parent's CPU per job", "s"),
    "idle": Measure("parent's CPU without jobs, each second", "s"),
}
INTERVAL = 15.0
"""Seconds between two scrapes, as Prometheus's documentation has it."""
IDLE = 3
"""The part of the time for which there are no jobs."""
PIECE = 100
"""Windows of jobs whose requests are made at a time."""


def run(bench: Bench) -> None:
    """Ask the question."""
    seconds = bench.size(INTERVAL, 0.5)
    bench.compare(
        int(bench.size(6, 1)),
        [contenders.dangad(name=WITHOUT), _with_page()],
        lambda running: _measure(running, seconds),
    )


def _with_page() -> Contender:
    def boot(stage: Stage) -> Running:
        web = stage.path(WEB)
        pid = contenders.start_dangad(stage, "--web", f"unix:{web}:mode=600")
        audience = stage.drive_python("audience", web, stage.path(CONTROL))
        audience.ask("pages", views=["/"], each=1)
        audience.ask("prometheus", interval=INTERVAL)
        return Running(contenders.drive_socket(stage), pid, stage)

    return Contender(WITH_PAGE, boot)


def _measure(running: Running, seconds: float) -> Mapping[str, float]:
    """Have jobs done for as long as from one scrape to the next, and then none for a while."""
    ask = running.driver.ask
    ask("windowed", jobs=20 * WINDOW, window=WINDOW)  # warms up
    began = cpu_seconds(running.parent)
    jobs, elapsed = 0, 0.0
    while elapsed < seconds:
        elapsed += ask("windowed", jobs=PIECE * WINDOW, window=WINDOW)["seconds"]
        jobs += PIECE * WINDOW
    before = cpu_seconds(running.parent)
    time.sleep(seconds / IDLE)
    idle = cpu_seconds(running.parent) - before
    return {
        "throughput": jobs / elapsed,
        "parent_cpu": (before - began) / jobs,
        "idle": idle * IDLE / seconds,
    }
