"""What does it cost to replace each worker after 100 jobs?

The jobs wait for 10 ms, so that the cores are free for the new workers to start. Jobs that take no
time, or keep all cores busy, would measure how often Python can be started.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from dangad.tap import Options
from tests.benchmarks import contenders
from tests.benchmarks.harness import Bench, Measure, Running

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = {
    "throughput": Measure("jobs of 10 ms, 4 in flight", "1/s"),
    "median": Measure("from request to answer, median", "s"),
    "longest": Measure("from request to answer, longest", "s"),
}

MICROSECONDS = 10_000
"""How long a job waits."""

WINDOW = 4
"""Jobs in flight: two run, and two wait behind them."""

RECYCLE_AFTER = 100


def run(bench: Bench) -> None:
    """Ask the question."""
    jobs = int(bench.size(1000, 250))
    known = any(option[0] == "recycle-jobs" for option in Options.optParameters)
    chosen = [
        contenders.dangad(
            *("--recycle-jobs", str(RECYCLE_AFTER)),
            name=f"recycling every {RECYCLE_AFTER} jobs",
            missing=None if known else "a dangad with the option --recycle-jobs",
        ),
        contenders.dangad(name="without recycling"),
    ]
    bench.compare(int(bench.size(3, 1)), chosen, lambda running: _measure(running, jobs))


def _measure(running: Running, jobs: int) -> Mapping[str, float]:
    ask = running.driver.ask
    ask("windowed", jobs=20, window=WINDOW)
    ran = ask("windowed", jobs=jobs, window=WINDOW, work="nap", amount=MICROSECONDS)
    return {
        "throughput": jobs / ran["seconds"],
        "median": statistics.median(ran["latencies"]),
        "longest": max(ran["latencies"]),
    }
