"""What do 10,000 idle connections cost, in memory, and in the time of a client that is active?"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from tests.benchmarks import boxes, contenders
from tests.benchmarks.contenders import SOCKET
from tests.benchmarks.harness import Bench, Measure, Running
from tests.benchmarks.machine import allow_many_files, resident
from tests.benchmarks.processes import PATIENCE, Broken

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = {
    "per_connection": Measure("parent's memory per idle connection", "B"),
    "median_alone": Measure("active client's median, alone", "s"),
    "median_among": Measure("active client's median, among idle ones", "s"),
    "throughput_alone": Measure("active client with 100 in flight, alone", "1/s"),
    "throughput_among": Measure("active client with 100 in flight, among idle ones", "1/s"),
}

LAST = boxes.request(0, b"Echo", b"last", {}).hex()
"""What a client asks for that is accepted after all the others."""

SPARE_FILES = 500
"""Descriptors that a process needs for all else."""


def run(bench: Bench) -> None:
    """Ask the question."""
    connections = min(int(bench.size(10_000, 200)), allow_many_files() - SPARE_FILES)
    jobs = int(bench.size(1000, 50))
    dangad = contenders.dangad("--max-connections", str(connections + SPARE_FILES))
    bench.compare(
        int(bench.size(3, 1)), [dangad], lambda running: _measure(running, connections, jobs)
    )


def _measure(running: Running, connections: int, jobs: int) -> Mapping[str, float]:
    _active(running, jobs)  # warms up
    median_alone, throughput_alone = _active(running, jobs)
    before = resident(running.parent)
    crowd = running.stage.drive_python("crowd", running.stage.path(SOCKET))
    gathered = crowd.ask("gather", idle=connections)
    if gathered["refused"]:
        raise Broken(f"only {gathered['connected']} connections were taken")
    crowd.ask("active", clients=1, seconds=PATIENCE / 2, most=1, request=LAST)  # is accepted last
    grown = resident(running.parent) - before
    median_among, throughput_among = _active(running, jobs)
    return {
        "per_connection": grown / connections,
        "median_alone": median_alone,
        "median_among": median_among,
        "throughput_alone": throughput_alone,
        "throughput_among": throughput_among,
    }


def _active(running: Running, jobs: int) -> tuple[float, float]:
    """The active client's serial median, and its throughput with many in flight."""
    ask = running.driver.ask
    median = statistics.median(ask("serial", jobs=jobs)["latencies"])
    return median, 5 * jobs / ask("windowed", jobs=5 * jobs, window=100)["seconds"]
