"""How much of two cores is left for jobs that compute for 10 ms each?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import contenders
from benchmarks.contenders import WORKERS
from benchmarks.harness import Bench, Measure, Running

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.harness import Contender

MEASURES = {"share": Measure("share of the ideal", "")}

MICROSECONDS = 10_000
"""CPU time of a job."""

WINDOW = 10
"""Jobs in flight."""


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
    bench.compare(int(bench.size(3, 1)), chosen, lambda running: _measure(running, jobs))


def _measure(running: Running, jobs: int) -> Mapping[str, float]:
    """The ideal is that two workers compute all the time; it wants two idle cores."""
    ask = running.driver.ask
    ask("windowed", jobs=WINDOW, window=WINDOW)  # has both workers up
    ran = ask("windowed", jobs=jobs, window=WINDOW, work="spin", amount=MICROSECONDS)
    return {"share": jobs * MICROSECONDS / 1e6 / WORKERS / ran["seconds"]}
