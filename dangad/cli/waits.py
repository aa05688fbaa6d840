"""What an order that takes long waits for, told to the user of a terminal: a reload, and a drain.

Used by :mod:`dangad.cli.operators`, and in part by :mod:`dangad.cli.devsession`. The server is
asked now and then while the order is under way.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from dangad.cli.streams import say
from dangad.cli.subcommands import document_of
from dangad.text import counted, printable, show_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dangad.client import Client

    Look = Callable[[], Awaitable[tuple[object, str]]]

PATIENCE = 3.0
"""Seconds between two questions about what is waited for."""
AGAIN = 30.0
"""Seconds after which an import that takes long is told again."""


@contextlib.asynccontextmanager
async def telling_of_reload(client: Client) -> AsyncIterator[None]:
    """A context in which the user of a terminal is told what a reload waits for."""
    if not _is_terminal():
        yield
        return
    before, began = (await document_of(client, "Status"))["generation"], time.monotonic()

    async def look() -> tuple[object, str]:
        workers = await document_of(client, "Workers")
        status, seconds = await document_of(client, "Status"), time.monotonic() - began
        if not has_booted(before, status["generation"], workers):
            return int(seconds / AGAIN), import_line(status["generation"], workers, seconds)
        return old_job(status["generation"], workers)

    with _telling(look):
        yield


@contextlib.asynccontextmanager
async def telling_of_drain(client: Client) -> AsyncIterator[None]:
    """A context in which the user of a terminal is told which jobs hold up a drain."""
    if not _is_terminal():
        yield
        return
    is_new = (await document_of(client, "Status"))["state"] == "running"
    patience = (await document_of(client, "Config"))["options"].get("drain") if is_new else None
    began = time.monotonic()

    async def look() -> tuple[object, str]:
        workers, status = await document_of(client, "Workers"), await document_of(client, "Status")
        left = None if patience is None else max(0.0, patience - (time.monotonic() - began))
        return longest_job(workers), drain_line(workers, status["jobs"]["waiting"], left)

    with _telling(look):
        yield


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def _telling(look: Look) -> Iterator[None]:
    """A context in which `look` is called now and then.

    :param look: returns what is told, which is told once, and the line; the line may be empty.
    """
    from twisted.internet.defer import Deferred
    from twisted.internet.task import LoopingCall

    told: set[object] = set()

    async def tell() -> None:
        what, line = await look()
        if line and what not in told:
            told.add(what)
            say(line)

    looking = LoopingCall(lambda: Deferred.fromCoroutine(tell()))
    # If this fails, the order fails as well, or its end is told.
    looking.start(PATIENCE, now=False).addErrback(lambda _: None)
    try:
        yield
    finally:
        if looking.running:
            looking.stop()


def has_booted(before: int, generation: int, workers: list[dict[str, Any]]) -> bool:
    """Whether a worker has imported the new code of a reload.

    :param before: the generation of the workers before the reload.
    """
    return generation > before and any(
        each["generation"] == generation and each["state"] in {"idle", "busy"} for each in workers
    )


def import_line(generation: int, workers: list[dict[str, Any]], seconds: float) -> str:
    """A line about new code that is being imported.

    :param seconds: how long the reload has taken.
    """
    starting = [
        each
        for each in workers
        if each["generation"] == generation and each["state"] == "starting" and each["pid"]
    ]
    who = f" by worker {starting[0]['pid']}" if starting else ""
    took = show_seconds(seconds)
    return f"the new code is being imported{who}, for {took} so far; `dangad stack` cannot ask it"


def old_job(generation: int, workers: list[dict[str, Any]]) -> tuple[int | None, str]:
    """The job for which a reload waits, the oldest of old workers: its id, and a line about it."""
    old = [each for each in workers if each["generation"] < generation]
    return longest_job(old), f"waiting for {_running(old)}" if longest_job(old) else ""


def longest_job(workers: list[dict[str, Any]]) -> int | None:
    """The id of the job that has run for longest; None if none runs."""
    jobs = [each["job"] for each in workers if each["job"]]
    return max(jobs, key=lambda job: job["runtime"])["id"] if jobs else None


def drain_line(workers: list[dict[str, Any]], waiting: int, left: float | None) -> str:
    """A line about the jobs that hold up a drain; empty if there are none.

    :param left: the seconds that are left to them; None if this is not known.
    """
    running = sum(bool(each["job"]) for each in workers)
    if not (running or waiting):
        return ""
    those = f"{counted(running, 'job')} running, {waiting} waiting"
    longest = f"; {_running(workers)}" if running else ""
    until = "" if left is None else f"; {show_seconds(left)} of --drain left"
    return f"waiting for jobs ({those}){longest}{until}"


def _running(workers: list[dict[str, Any]]) -> str:
    """The worker whose job has run for longest, and this job."""
    worker = max((each for each in workers if each["job"]), key=lambda each: each["job"]["runtime"])
    job = worker["job"]
    runs = f"{printable(job['command'])} (job {job['id']}) for {show_seconds(job['runtime'])}"
    return f"worker {worker['pid']}, which has been running {runs}"
