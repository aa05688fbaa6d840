"""Does a job cost more when 100,000 others wait, and how much memory does one that waits take?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks import contenders
from tests.benchmarks.contenders import WORKERS
from tests.benchmarks.harness import Bench, Measure, Running
from tests.benchmarks.machine import cpu_seconds, resident

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = {
    "cpu_short": Measure("parent's CPU per job, 100 queued", "s"),
    "cpu_long": Measure("parent's CPU per job, 100,000 queued", "s"),
    "per_job": Measure("parent's memory per queued job, beyond its data", "B"),
}

SHORT = 100
SIZE = 32
"""Bytes of a job's data."""


def run(bench: Bench) -> None:
    """Ask the question."""
    queued = int(bench.size(100_000, 2000))
    room = str(2 * queued)
    dangad = contenders.dangad("--max-queued", room, "--max-in-flight", room)
    bench.compare(int(bench.size(3, 1)), [dangad], lambda running: _measure(running, queued))


def _measure(running: Running, queued: int) -> Mapping[str, float]:
    """Hold the workers, queue jobs, let go: often with a short queue, once with a long one."""
    repeats = max(1, queued // SHORT // 10)
    _hold_and_release(running, SHORT, repeats)  # warms up
    short, _ = _hold_and_release(running, SHORT, repeats)
    long, grown = _hold_and_release(running, queued, 1)
    return {
        "cpu_short": short / (repeats * (SHORT + WORKERS)),
        "cpu_long": long / (queued + WORKERS),
        "per_job": grown / queued - SIZE,
    }


def _hold_and_release(running: Running, queued: int, repeats: int) -> tuple[float, int]:
    """The parent's CPU time, and how much its memory had grown when the last queue was full."""
    ask = running.driver.ask
    before_cpu = cpu_seconds(running.parent)
    before = grown = 0
    for _ in range(repeats):
        before = resident(running.parent)
        ask("hold", workers=WORKERS, path=running.stage.path("lock"), queued=queued, size=SIZE)
        grown = resident(running.parent) - before
        ask("release")
    return cpu_seconds(running.parent) - before_cpu, grown
