"""Which of Twisted's reactors serves best?

uvloop does not take part: it takes SIGCHLD for itself, so that exits of workers are missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks import contenders
from tests.benchmarks.echo import MEASURES as _ALL
from tests.benchmarks.echo import measure

if TYPE_CHECKING:
    from tests.benchmarks.harness import Bench, Running

MEASURES = {name: _ALL[name] for name in ("serial", "throughput", "parent_cpu")}
"""Some of those of an echo."""

REACTORS = ("epoll", "asyncio", "poll", "select")
"""The first is Twisted's choice on Linux."""


def run(bench: Bench) -> None:
    """Ask the question."""
    seconds = bench.size(0.8, 0.05)
    chosen = [contenders.dangad(name=name, reactor=name) for name in REACTORS]

    def ask(running: Running) -> dict[str, float]:
        measured = measure(running, seconds)
        return {name: measured[name] for name in MEASURES}

    bench.compare(int(bench.size(5, 1)), chosen, ask)
