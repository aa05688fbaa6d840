"""How long honest clients wait beside hostile ones: ``python -m tests.soak_latency``.

A few honest clients ask for short jobs at a moderate rate. In every second round those of
:mod:`tests.hostileclients` are beside them, and the 99th percentile of the honest ones' latency may
then be `MOST` times what it is in the other rounds. None of their jobs may fail in either. Rounds
take turns because a machine is not as busy with other things at one time as at another.

What is measured is what a client can do to others by what it sends, and by harmful jobs that take
some milliseconds, as the honest ones do. Left out are:

- what costs a worker's start (its job is stopped, it dies): see :mod:`tests.hostileclients`; the
  load of :mod:`tests.soak_history` has all of that;
- more connections with waiting jobs than a handful: connections take turns in having their jobs
  started, and whoever opens a hundred has a hundred turns;
- long jobs: all workers may be busy with those of one client.

Prints the latencies of each round; the exit status is 1 if there is anything wrong. The log of the
server stays in a folder then, which is named.
"""

from __future__ import annotations

import os
import random
import time
from functools import partial
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.protocols import amp

from tests import historyjobs as jobs
from tests.historyhostility import run_hostility
from tests.loadedserver import MIN_WORKERS, LoadedServer
from tests.realserver import until
from tests.soaking import parser_of, run_soak

MOST = 3.0
"""How many times as long the 99th percentile may be beside hostile clients."""
ROUND = 5.0
"""Seconds of a round, about."""
CLIENTS = 4
PAUSE = 0.03
"""Seconds between two jobs of one client, on the average: a third of the workers' time is used."""
KINDS = ((0.6, "live", 0.0), (0.3, "live", 0.005), (0.1, "busy", 0.02))
"""What the jobs are: how many of them, what they do, and for how many seconds."""
WORST = 99


class Latencies:
    """The seconds that each honest job took, in rounds of one kind; `failed`, what went wrong."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed: list[str] = []

    def add(self, other: Latencies) -> None:
        """Take another round's."""
        self.seconds += other.seconds
        self.failed += other.failed

    def percentile(self, percent: float) -> float:
        """The seconds within which so many of a hundred were answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def __str__(self) -> str:
        """The numbers in one line."""
        shown = (f"p{percent} {self.percentile(percent) * 1000:.1f}" for percent in (50, 90, WORST))
        return f"{', '.join(shown)} ms of {len(self.seconds)} jobs"


async def _ask(reactor: Any, path: str, seed: str, end: float, found: Latencies) -> None:
    """One honest client: a job, a pause, and so on."""
    chance = random.Random(seed)
    client = await connectProtocol(UNIXClientEndpoint(reactor, path), amp.AMP())
    while time.monotonic() < end:
        [(_, deed, seconds)] = chance.choices(KINDS, [kind[0] for kind in KINDS])
        began = time.monotonic()
        try:
            await client.callRemote(jobs.Quick, name="-", deed=deed, seconds=seconds)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told at the end
            found.failed.append(f"{type(error).__name__}: {error}")
            if client.transport is None or client.transport.disconnected:
                return
        found.seconds.append(time.monotonic() - began)
        await task.deferLater(reactor, chance.expovariate(1 / PAUSE))
    client.transport.loseConnection()


async def _round(
    reactor: Any, server: LoadedServer, seed: str, seconds: float, hostility: list[str] | None
) -> Latencies:
    """What honest clients find for so long; those that are hostile begin before, and end after.

    :param hostility: the options of the hostile ones; None if there are none.
    """
    found = Latencies()
    others = None
    if hostility is not None:
        others = Deferred.fromCoroutine(
            run_hostility(reactor, server, seed, seconds + 2.0, *hostility)
        )
        await task.deferLater(reactor, 1.5)
    end = time.monotonic() + seconds
    clients = [_ask(reactor, server.socket, f"{seed}/{n}", end, found) for n in range(CLIENTS)]
    await gatherResults(map(Deferred.fromCoroutine, clients))
    if others is not None:
        print("   ", ", ".join(f"{count} {name}" for name, count in (await others).items()))
    return found


async def measure(
    reactor: Any, hostility: list[str], seconds: float, seed: int, folder: str
) -> bool:
    """Run all rounds; whether the honest did not suffer."""
    server = LoadedServer(folder, MIN_WORKERS, ())
    try:
        await until(lambda: os.path.exists(server.socket))
        await until(server.has_booted)
        await _round(reactor, server, "warm-up", 1.0, None)
        alone, beside = Latencies(), Latencies()
        for number in range(max(2, int(seconds / (2 * ROUND + 3.0)))):
            for options, all_of_them in ((None, alone), (hostility, beside)):
                found = await _round(reactor, server, f"{seed}/{number}", ROUND, options)
                print(f"{'alone' if options is None else 'beside':10}{found}", flush=True)
                all_of_them.add(found)
    finally:
        server.kill()
    ratio = beside.percentile(WORST) / alone.percentile(WORST)
    print(f"alone: {alone}\nbeside: {beside}\np{WORST}: {ratio:.2f} x, at most {MOST:g} x")
    failed = alone.failed + beside.failed
    for text in failed[:10]:
        print(f"FAILED: {text}")
    return ratio <= MOST and not failed


def main(reactor: Any, *arguments: str) -> Deferred[None]:
    """Run, and end the program."""
    parser = parser_of("latency", __doc__)
    parser.add_argument("--only", help="the one thing that hostile clients do")
    options = parser.parse_args(arguments)
    hostility = ["--calm", "--hands=5", *(["--only", options.only] if options.only else [])]
    return run_soak("latency", options, partial(measure, reactor, hostility))


if __name__ == "__main__":
    import sys

    task.react(main, sys.argv[1:])
