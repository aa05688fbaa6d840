"""Why one asynchronous parent with workers, and not a process for each client?

The same jobs, a directory listing and 20 ms of computing, are done for the same clients by five
servers: one forks for each connection, one has forked beforehand, one does the jobs in its event
loop; and dangad, with workers that stay and with a worker for each job. First four active clients
come alone, and open a connection for each job: what a process for each connection is best at. Then
more and more clients are connected and idle, but for one in ten, which is slow; and behind them,
each time, come the four active ones.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from dangad.examples import ListDirectory
from dangad.wire.boxes import unpack
from tests.benchmarks import boxes, contenders
from tests.benchmarks.contenders import SOCKET, start_dangad
from tests.benchmarks.harness import DANGAD, Bench, Contender, Measure, Running, percentile
from tests.benchmarks.machine import allow_many_files, available, family, proportional
from tests.benchmarks.processes import PATIENCE, Broken, TooSlow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.processes import Stage

CLIENTS = (10, 100, 1000, 10_000)
"""How many are idle or slow."""

ACTIVE = 4
SLOW_SHARE = 10
"""One in so many is slow."""

PROCESSES = 16
"""Of the server that has forked beforehand."""

FORK, PREFORK = "fork per connection", f"prefork, {PROCESSES} processes"
LOOP, ISOLATED = "event loop alone", "dangad, a fork per job"
"""The names of dangad's rivals here."""

JOBS = {"listing": "listing", "cpu": "20 ms of computing"}
SHORT_JOBS = {"echo": "echo", **JOBS}
"""Those for which a connection each is opened, too."""

MEASURES = {
    **{
        f"{clients}_{quantity}": Measure(f"{text}, {clients:,} idle clients", unit)
        for clients in CLIENTS
        for quantity, text, unit in (
            ("memory", "memory", "B"),
            *(
                (f"{job}_{quantity}", f"{text}: {quantity}", unit)
                for job, text in JOBS.items()
                for quantity, unit in (("throughput", "1/s"), ("median", "s"), ("p99", "s"))
            ),
        )
    },
    **{
        f"short_{job}_{quantity}": Measure(f"{text}: {quantity}, a connection for each", unit)
        for job, text in SHORT_JOBS.items()
        for quantity, unit in (("throughput", "1/s"), ("median", "s"), ("p99", "s"))
    },
    "starves_at": Measure("idle clients at which active ones are not served", ""),
    "too_large_at": Measure("idle clients for which the memory would not do", ""),
}

FILES = 100
"""Entries in the directory that is listed."""

MICROSECONDS = 20_000
"""CPU time of the job that computes."""

SAMPLE = 100
"""Processes whose memory is looked at, if there are more: they are all alike."""

GATHERING, ARRIVING = 5.0, 0.01
"""Seconds after which clients count as not served, and how many more for each new one."""

_LISTED = "listed"
_SPARE_MEMORY = 0.7
"""The share of the available memory that may be used."""


def peers() -> list[Contender]:
    """Who takes part."""
    most = str(CLIENTS[-1] + 100)

    def dangad(stage: Stage) -> Running:
        pid = start_dangad(stage, "--max-connections", most)
        return _crowd(stage, pid)

    def fork(stage: Stage) -> Running:
        module = "tests.benchmarks.servers.forking"
        return _crowd(stage, stage.start_python("-m", module, stage.path(SOCKET)))

    def prefork(stage: Stage) -> Running:
        module = "tests.benchmarks.servers.prefork"
        pid = stage.start_python("-m", module, stage.path(SOCKET), str(PROCESSES))
        return _crowd(stage, pid)

    def loop(stage: Stage) -> Running:
        module = "tests.benchmarks.servers.looping"
        return _crowd(stage, stage.start_python("-m", module, stage.path(SOCKET)))

    def isolated(stage: Stage) -> Running:
        options = ("--preload", "--recycle-jobs", "1", "--max-connections", most)
        return _crowd(stage, start_dangad(stage, *options))

    return [
        Contender(DANGAD, dangad),
        Contender(ISOLATED, isolated),
        Contender(LOOP, loop),
        Contender(FORK, fork),
        Contender(PREFORK, prefork),
    ]


def run(bench: Bench, taking_part: Sequence[Contender] | None = None) -> None:
    """Ask the question.

    :param taking_part: the contenders, if not all.
    """
    allow_many_files()
    chosen = peers() if taking_part is None else taking_part
    most = int(bench.size(CLIENTS[-1], 100))
    seconds = bench.size(1.5, 0.2)
    bench.compare(int(bench.size(2, 1)), chosen, lambda running: _measure(running, most, seconds))


def _crowd(stage: Stage, pid: int) -> Running:
    """A server's clients, and a directory for them to list."""
    listed = stage.folder / _LISTED
    listed.mkdir()
    for number in range(FILES):
        (listed / f"file {number}").touch()
    contenders.wait_for_socket(stage)
    return Running(stage.drive_python("crowd", stage.path(SOCKET)), pid, stage)


def _measure(running: Running, most: int, seconds: float) -> Mapping[str, float]:
    """Let more and more clients come, until there are enough or the active ones get nothing."""
    measured: dict[str, float] = {}
    for job in SHORT_JOBS:  # before the crowd, which stays
        _active(running, job, 1.0, most=10, reconnect=True)
        measured.update(_named(f"short_{job}", _active(running, job, seconds, reconnect=True)))
    crowd = 0
    memory = 0.0
    for clients in (each for each in CLIENTS if each <= most):
        if crowd and memory * clients / crowd > available() * _SPARE_MEMORY:
            return {**measured, "too_large_at": clients}
        more = clients - crowd
        slow = more // SLOW_SHARE
        if not _gathers(running, more - slow, slow):
            return {**measured, "starves_at": clients}
        crowd += more
        memory = measured[f"{clients}_memory"] = _memory(running.parent)
        for job in JOBS:
            latencies = _active(running, job, seconds)
            measured.update(_named(f"{clients}_{job}", latencies))
    return measured


def _gathers(running: Running, idle: int, slow: int) -> bool:
    """Have so many more clients connect: whether an active one behind them is served."""
    seconds = GATHERING + (idle + slow) * ARRIVING
    try:
        gathered = running.driver.ask("gather", idle=idle, slow=slow, patience=seconds)
        return not gathered["refused"] and bool(_active(running, "listing", seconds, most=1))
    except TooSlow:
        return False


def _active(
    running: Running, job: str, seconds: float, *, most: int = 10_000, reconnect: bool = False
) -> list[float]:
    """The seconds that each job took which active clients had done; the answers are checked."""
    ran = running.driver.ask(
        "active",
        clients=ACTIVE,
        seconds=seconds,
        most=most,
        request=REQUESTS[job].hex(),
        reconnect=reconnect,
        patience=seconds + PATIENCE,
    )
    latencies: list[float] = ran["latencies"]
    if latencies:
        _check(job, bytes.fromhex(ran["answer"]))
    # Those who were not answered at all would not show in a median.
    return latencies if ran["starved"] == 0 or most == 1 else []


def _named(prefix: str, latencies: list[float]) -> dict[str, float]:
    """The figures of one run."""
    if not latencies:
        return {f"{prefix}_throughput": 0.0}
    return {
        # Each of the active clients has a job done all the time.
        f"{prefix}_throughput": ACTIVE / statistics.fmean(latencies),
        f"{prefix}_median": statistics.median(latencies),
        f"{prefix}_p99": percentile(latencies, 99),
    }


REQUESTS = {
    "echo": boxes.request(0, b"Echo", b"echoed", {}),
    "listing": (
        boxes.pair(b"_ask", boxes.tag_of(0))
        + boxes.pair(b"_command", b"ListDirectory")
        + boxes.pair(b"path", _LISTED.encode())
        + boxes.END
    ),
    "cpu": boxes.request(0, b"Spin", b"spun", {b"microseconds": b"%d" % MICROSECONDS}),
}


def _check(job: str, answer: bytes) -> None:
    """See that an answer is right; the driver has seen that all others are the same.

    :raises Broken: it is not.
    """
    data = {"echo": b"echoed", "cpu": b"spun"}.get(job)
    if data is not None:
        right = answer == boxes.answer(0, data)
    else:
        response = ListDirectory.parseResponse(unpack(answer), None)
        names = sorted(entry["name"] for entry in response["entries"])
        right = names == sorted(b"file %d" % number for number in range(FILES))
    if not right:
        raise Broken(f"a wrong answer: {answer!r:.200}")


def _memory(pid: int) -> float:
    """What a process and its descendants have, shared pages counted once."""
    processes = family(pid)
    step = max(1, len(processes) // SAMPLE)
    looked_at = [proportional(each) for each in processes[1::step]] or [0]
    return proportional(pid) + statistics.fmean(looked_at) * (len(processes) - 1)
