"""How long does a job take that does nothing, and how many such jobs are done in a second?"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from tests.benchmarks import contenders
from tests.benchmarks.harness import Bench, Measure, Running, percentile
from tests.benchmarks.machine import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.harness import Contender

MEASURES = {
    "serial": Measure("serial, median", "s"),
    "serial_p99": Measure("serial, 99th percentile", "s"),
    "throughput": Measure("100 in flight", "1/s"),
    "parent_cpu": Measure("parent's CPU per job", "s"),
    "parent_cpu_serial": Measure("parent's CPU per job, serial", "s"),
}

WINDOW = 100
"""Jobs in flight."""

MOST = 20_000
"""Jobs in a run at most, however quick they are."""


def peers() -> list[Contender]:
    """Who takes part."""
    return [
        contenders.dangad(),
        contenders.blocking_relay(),
        contenders.bare_relay(),
        contenders.ampoule_alone(),
        contenders.process_pool(),
        contenders.loky(),
        contenders.perl_gearman(),
        contenders.c_gearman(),
        contenders.celery(),
        contenders.dask(),
    ]


def run(bench: Bench, taking_part: Sequence[Contender] | None = None) -> None:
    """Ask the question.

    :param taking_part: the contenders, if not all.
    """
    seconds = bench.size(0.8, 0.05)
    chosen = peers() if taking_part is None else taking_part
    bench.compare(int(bench.size(5, 1)), chosen, lambda running: measure(running, seconds))


def measure(running: Running, seconds: float) -> Mapping[str, float]:
    """Run serially, and then with a full window, for about so many seconds each."""
    ask = running.driver.ask
    warm = statistics.fmean(ask("serial", jobs=50)["latencies"])
    jobs = _fitting(seconds, warm)
    before = cpu_seconds(running.parent)
    latencies = ask("serial", jobs=jobs)["latencies"]
    serial_cpu = (cpu_seconds(running.parent) - before) / jobs
    measured = {
        "serial": statistics.median(latencies),
        "serial_p99": percentile(latencies, 99),
    }
    if running.concurrent:
        warm = ask("windowed", jobs=2 * WINDOW, window=WINDOW)["seconds"] / (2 * WINDOW)
        jobs = _fitting(seconds, warm)
        before = cpu_seconds(running.parent)
        elapsed = ask("windowed", jobs=jobs, window=WINDOW)["seconds"]
        measured["throughput"] = jobs / elapsed
        measured["parent_cpu"] = (cpu_seconds(running.parent) - before) / jobs
    measured["parent_cpu_serial"] = serial_cpu
    if running.in_client:  # its CPU time is the client's as well
        del measured["parent_cpu"], measured["parent_cpu_serial"]
    return measured


def _fitting(seconds: float, each: float) -> int:
    """How many jobs take about so long, in whole windows, and within bounds."""
    return max(1, min(MOST, int(seconds / each)) // WINDOW) * WINDOW
