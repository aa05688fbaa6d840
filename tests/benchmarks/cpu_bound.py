"""How much of two cores is left for jobs that compute for 10 ms each?"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tests.benchmarks import contenders
from tests.benchmarks.contenders import WORKERS
from tests.benchmarks.harness import Bench, Measure, Running
from tests.benchmarks.machine import cpu_seconds
from tests.benchmarks.work import spin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.harness import Contender

MEASURES = {
    "share": Measure("share of the ideal", ""),
    "parent_cpu": Measure("parent's CPU per job", "s"),
}

MICROSECONDS = 10_000
"""CPU time of a job."""

WINDOW = 10
"""Jobs in flight."""

ALONE = "nothing but the jobs"


def peers() -> list[Contender]:
    """Who takes part."""
    return [
        contenders.dangad(),
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
    jobs = int(bench.size(400, 20))
    chosen = peers() if taking_part is None else taking_part
    rounds = int(bench.size(3, 1))
    bench.compare(rounds, chosen, lambda running: _measure(running, jobs))
    bench.interleave(rounds, {ALONE: lambda: _without_server(jobs)})


def _measure(running: Running, jobs: int) -> Mapping[str, float]:
    """The ideal is that two workers compute all the time; it wants two idle cores."""
    ask = running.driver.ask
    ask("windowed", jobs=WINDOW, window=WINDOW)  # has both workers up
    before = cpu_seconds(running.parent)
    ran = ask("windowed", jobs=jobs, window=WINDOW, work="spin", amount=MICROSECONDS)
    measured = {"share": jobs * MICROSECONDS / 1e6 / WORKERS / ran["seconds"]}
    if not running.in_client:
        measured["parent_cpu"] = (cpu_seconds(running.parent) - before) / jobs
    return measured


def _without_server(jobs: int) -> Mapping[str, float]:
    """As many processes as there are workers share the jobs, and talk to nobody."""
    start = time.perf_counter()
    children = []
    for _ in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            for _ in range(jobs // WORKERS):
                spin(b"", MICROSECONDS)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    seconds = time.perf_counter() - start
    return {"share": jobs * MICROSECONDS / 1e6 / WORKERS / seconds}
