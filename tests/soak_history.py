"""The load of :mod:`tests.historyload` for as long as told: ``python -m tests.soak_history``.

Hostile clients and hostile jobs are beside it.
Prints the seed, what the run was made of, what the server held after each round, and the first
contradictions; the exit status is 1 if there are any, or if the server holds ever more. What
was written down stays in a folder then, which is named.
"""

from __future__ import annotations

import os
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet import task

from dangad.limits import STARTS
from tests.history import Reconciliation
from tests.historyload import Load, summary
from tests.loadedserver import MIN_WORKERS
from tests.soaking import parser_of, run_soak

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

ROUNDS = 6
"""How many there are, the warm-up included."""
BETWEEN = 4.0
"""Seconds that it takes, about, until the server has settled after a round, or has stopped."""
TREND = 2**20
"""Bytes of memory that the last rounds may need more than those before, on the average."""
MAX_WORKERS = MIN_WORKERS + 1
SHOWN = 10
"""Contradictions that are shown with all that is known of their job."""


async def soak(reactor: Any, seconds: float, seed: int, folder: str) -> bool:
    """Run the load with each way to start workers; whether all was well."""
    good = True
    for start in STARTS:
        print(f"--start {start}")
        own = os.path.join(folder, start)
        os.mkdir(own)
        good &= await _soak(reactor, seconds / len(STARTS), seed, own, start)
    return good


async def _soak(reactor: Any, seconds: float, seed: int, folder: str, start: str) -> bool:
    """Run the load once; whether it ended well and nothing contradicts in its history."""
    load = Load(reactor, folder, seed, MAX_WORKERS, hostile=True, start=start)
    good = True
    try:
        await load.run(*[max(2.0, seconds / ROUNDS - BETWEEN)] * ROUNDS)
    except AssertionError as error:
        print(f"FAILED: {error}")
        good = False
    if (trend := _trend(load)) > TREND:
        print(f"FAILED: memory goes up by {trend / 2**20:.1f} MiB from the middle to the end")
        good = False
    history = load.history()
    print(summary(load, history), flush=True)
    found = list(Reconciliation(history).contradictions())
    for name, text in islice(found, SHOWN):
        print(f"\nCONTRADICTION {name}: {text}")
        for line in history.about(name) if name else ():
            print(f"    {line}")
    print(f"{len(found)} contradictions")
    return good and not found


def _trend(load: Load) -> float:
    """How many bytes the server had more after the last two rounds than after those before."""
    *_, a, b, c, d = [0, 0, 0, 0, *(footprint.memory for footprint in load.footprints[1:])]
    return (c + d - a - b) / 2 if a else 0.0


def main(reactor: Any, *arguments: str) -> Deferred[None]:
    """Run, and end the program."""
    options = parser_of("history", __doc__).parse_args(arguments)
    return run_soak("history", options, partial(soak, reactor))


if __name__ == "__main__":
    import sys

    task.react(main, sys.argv[1:])
