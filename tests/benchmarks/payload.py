"""How fast do 10 MB go there and back, and how much memory does the parent need for it?"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from tests.benchmarks import contenders
from tests.benchmarks.harness import Bench, Measure, Running
from tests.benchmarks.machine import peak_resident, resident

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = {
    "throughput": Measure("there and back", "B/s"),
    "payloads": Measure("parent's peak memory, in payloads", ""),
}


def run(bench: Bench) -> None:
    """Ask the question."""
    size = int(bench.size(10_000_000, 300_000))
    jobs = int(bench.size(10, 2))
    chosen = [contenders.dangad(), contenders.bare_relay(cut=False)]
    bench.compare(int(bench.size(5, 1)), chosen, lambda running: _measure(running, size, jobs))


def _measure(running: Running, size: int, jobs: int) -> Mapping[str, float]:
    """The payload counts once for each way."""
    ask = running.driver.ask
    ask("serial", jobs=20)
    before = resident(running.parent)
    latencies = ask("serial", jobs=jobs, size=size)["latencies"]
    return {
        "throughput": 2 * size / statistics.median(latencies),
        "payloads": (peak_resident(running.parent) - before) / size,
    }
