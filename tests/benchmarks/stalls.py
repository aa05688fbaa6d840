"""For how long does the server's loop serve nobody else, whatever happens?

Each contender is one thing that happens; what is measured are the turns of the reactor meanwhile.
A turn that had to wait for a core does not count for that: it is the machine's to give one. But it
does for a call that blocks, though that takes no CPU time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import boxes
from tests.benchmarks.harness import Bench, Measure, percentile
from tests.benchmarks.machine import allow_many_files
from tests.benchmarks.processes import Stage
from tests.benchmarks.watchedserver import (
    CANCEL,
    DRAIN,
    JOBS,
    PAUSE,
    RESUME,
    SPARE_FILES,
    Sizes,
    Watched,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MEASURES = {
    "longest": Measure("longest turn", "s"),
    "p999": Measure("99.9th percentile", "s"),
    "cpu": Measure("CPU time, longest", "s"),
    "collected": Measure("garbage collector, longest", "s"),
    "wall": Measure("with waits for a core, longest", "s"),
}

CLIENTS = 100
PAYLOAD = 60 * 2**20


def run(bench: Bench) -> None:
    """Ask the question."""
    connections = min(int(bench.size(10_000, 200)), allow_many_files() - SPARE_FILES)
    sizes = Sizes(
        jobs=int(bench.size(100_000, 2000)),
        connections=connections,
        workers=int(bench.size(40, 4)),
        each=int(bench.size(1000, 20)),
    )
    bench.interleave(
        1,  # the longest of thousands of turns, and each costs a minute
        {name: partial(_on_stage, happen, sizes) for name, happen in HAPPENINGS.items()},
    )


# What happens; each leaves the server settled.


def _clients_go(server: Watched) -> None:
    crowd = server.stage.drive_python("crowd", server.path)
    crowd.ask("gather", idle=server.sizes.connections)
    server.wait_until(lambda status: status["connections"] >= server.sizes.connections)
    server.mark()
    os.kill(crowd.pid, signal.SIGKILL)
    server.wait_until(lambda status: status["connections"] == 0)


def _client_with_jobs_goes(server: Watched) -> None:
    client = server.fill(server.sizes.jobs)
    server.mark()
    client.close()
    server.wait_until(lambda status: status["jobs"]["waiting"] == 0)


def _all_is_cancelled(server: Watched) -> None:
    client = server.fill(server.sizes.jobs)
    client.read_on()
    server.mark()
    client.send(
        boxes.pair(b"_ask", b"c%d" % number)
        + boxes.pair(b"_command", b"dangad.Cancel")
        + boxes.pair(b"tag", boxes.tag_of(number))
        for number in range(server.sizes.jobs)
    )
    server.wait_until(lambda status: status["jobs"]["waiting"] == 0)
    client.close()


def _deadlines_fall_together(server: Watched) -> None:
    falls = time.monotonic() + 5 + server.sizes.jobs / 5000
    client = server.fill(server.sizes.jobs, falls)
    client.read_on()
    server.mark()
    server.wait_until(lambda status: status["jobs"]["waiting"] == 0)
    client.close()


def _operators_look(server: Watched) -> None:
    client = server.fill(server.sizes.jobs)
    server.mark()
    for sort in (b"-age", b"client"):
        for which in ({}, {"command": b"Echo", "client": b"process", "older_than": b"0.01"}):
            page = {"limit": b"1000", "offset": b"10000"}
            with server.operator(JOBS, sort=sort, **page, **which) as operator:
                operator.receive_box()
    client.close()


def _operators_cancel(server: Watched) -> None:
    client = server.fill(server.sizes.jobs)
    client.read_on()
    server.mark()
    while server.status()["jobs"]["waiting"]:
        with server.operator(CANCEL, command=b"Echo") as operator:
            operator.receive_box()
    client.close()


def _operators_pause(server: Watched) -> None:
    client = server.fill(server.sizes.jobs)
    server.mark()
    for order in (PAUSE, RESUME):
        with server.operator(order) as operator:
            operator.receive_box()
        server.wait_until(lambda status: status["jobs"]["waiting"] == server.sizes.jobs)
    client.close()


def _drain_gives_up(server: Watched) -> None:
    client = server.fill(server.sizes.jobs)
    client.read_on()
    server.mark()
    with server.operator(DRAIN) as operator:
        operator.receive_box()


def _many_workers_start(server: Watched) -> None:
    with server.connect() as client:
        nap = {b"microseconds": b"50000"}
        jobs = 5 * server.sizes.workers
        client.read_on()
        server.mark()
        for number in range(jobs):
            client.keep(boxes.request(number, b"Nap", b"", nap))
        client.flush()
        client.wait_for_bytes(jobs * len(boxes.answer(0, b"")))


def _everybody_asks(box: Callable[[int], bytes], answer: int) -> Callable[[Watched], None]:
    """Many clients that send many requests each, without a pause."""

    def happen(server: Watched) -> None:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(CLIENTS)]
            for client in clients:
                client.read_on()
            server.mark()
            for client in clients:
                for number in range(server.sizes.each):
                    client.keep(box(number))
                client.flush()
            for client in clients:
                client.wait_for_bytes(server.sizes.each * answer)

    return happen


def _ping(number: int) -> bytes:
    tag = boxes.pair(b"_ask", boxes.tag_of(number))
    return tag + boxes.pair(b"_command", b"dangad.Ping") + boxes.END


def _describe(number: int) -> bytes:
    tag = boxes.pair(b"_ask", boxes.tag_of(number))
    return tag + boxes.pair(b"_command", b"dangad.Describe") + boxes.END


def _echo(number: int) -> bytes:
    return boxes.request(number, b"Echo", b"", {})


def _urgent_jobs_come(server: Watched) -> None:
    """They go before what busy workers have prefetched; and an operator looks at the workers."""
    with server.connect() as crowd, server.connect() as urgent:
        crowd.read_on()
        urgent.read_on()
        server.mark()
        for number in range(server.sizes.jobs):
            crowd.keep(boxes.request(number, b"Echo", b"", {b"_priority": b"low"}))
        crowd.flush()
        for number in range(CLIENTS):
            urgent.keep(boxes.request(number, b"Echo", b"", {b"_priority": b"high"}))
            urgent.flush()
            server.status()
        urgent.wait_for_bytes(CLIENTS * len(boxes.answer(0, b"")))
        crowd.wait_for_bytes(server.sizes.jobs * len(boxes.answer(0, b"")))


def _jobs_shout(server: Watched) -> None:
    """Each worker's job prints as many lines as the log takes of one."""
    with server.connect() as client:
        client.read_on()
        server.mark()
        for number in range(server.sizes.workers):
            client.keep(boxes.request(number, b"Shout", b"", {b"lines": b"1000"}))
        client.flush()
        client.wait_for_bytes(server.sizes.workers * len(boxes.answer(0, b"")))


def _crumbs_come(server: Watched) -> None:
    """Requests that are full of tiny keys, all of which are looked at."""
    crumbs = boxes.pair(b"x", b"") * 12_000
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(CLIENTS)]
        for client in clients:
            client.read_on()
            client.keep(boxes.request(0, b"Echo", b"", {})[:-2] + crumbs + boxes.END)
        server.mark()
        for client in clients:
            client.flush()
        for client in clients:
            client.wait_for_bytes(len(boxes.answer(0, b"")))


def _large_payloads(server: Watched) -> None:
    """Two clients whose requests and answers are as large as they may be."""
    data = bytes(min(PAYLOAD, server.sizes.jobs * 600))
    with server.connect() as one, server.connect() as other:
        server.mark()
        for client in (one, other):
            client.read_on()
            client.keep(boxes.request(0, b"Echo", data, {}))
        other_sends = threading.Thread(target=other.flush)
        other_sends.start()
        one.flush()
        other_sends.join()
        for client in (one, other):
            client.wait_for_bytes(len(boxes.answer(0, data)))


HAPPENINGS: Mapping[str, Callable[[Watched], None]] = {
    "10,000 clients go at once": _clients_go,
    "a client with 100,000 jobs goes": _client_with_jobs_goes,
    "100,000 jobs are cancelled": _all_is_cancelled,
    "100,000 deadlines fall together": _deadlines_fall_together,
    "operators look through 100,000 jobs": _operators_look,
    "operators cancel 100,000 jobs": _operators_cancel,
    "operators pause and resume 100,000 jobs": _operators_pause,
    "a drain gives up 100,000 jobs": _drain_gives_up,
    "40 workers start for their jobs": _many_workers_start,
    "100 clients ping without a pause": _everybody_asks(
        _ping, len(boxes.pair(b"_answer", b"8" * 8)) + 2
    ),
    "100 clients send 1,000 jobs each": _everybody_asks(_echo, len(boxes.answer(0, b""))),
    "100 clients ask for the catalogue": _everybody_asks(_describe, 1000),
    "urgent jobs come while 40 workers are busy": _urgent_jobs_come,
    "two payloads of 60 MiB": _large_payloads,
    "100 clients send 12,000 keys each": _crumbs_come,
    "jobs of 40 workers print 1,000 lines each": _jobs_shout,
}
"""What happens, by the name of the row."""


def _on_stage(happen: Callable[[Watched], None], sizes: Sizes) -> Mapping[str, float]:
    """Have it happen to a server of its own; the turns of the loop."""
    with Stage() as stage:
        workers = sizes.workers if happen in (_urgent_jobs_come, _jobs_shout) else 2
        most = sizes.workers if happen is _many_workers_start else workers
        with contextlib.closing(Watched(stage, sizes, workers, most)) as server:
            happen(server)
        turns = server.last_turns() if happen is _drain_gives_up else server.turns()
    own = [turn.own for turn in turns]
    return {
        "longest": max(own),
        "p999": percentile(own, 99.9),
        "cpu": max(turn.cpu for turn in turns),
        "collected": max(turn.collected for turn in turns),
        "wall": max(turn.wall for turn in turns),
    }
