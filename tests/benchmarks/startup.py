"""How long is it from the start of the server to its first answer?"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from dangad.pool.launch import BOOTSTRAP, WorkerSettings
from tests.benchmarks import boxes, contenders
from tests.benchmarks.contenders import SOCKET
from tests.benchmarks.harness import DANGAD, Bench, Measure
from tests.benchmarks.processes import PATIENCE, ROOT, Broken, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = {
    "first_answer": Measure("start to first answer", "s"),
    "reactor": Measure('python -c "import twisted.internet.reactor"', "s"),
    "worker": Measure("one worker's boot", "s"),
    "allowed": Measure("these two and 0.3 s", "s"),
}

ALLOWANCE = 0.3
"""Seconds beyond the parts."""

_FROM_PARENT, _TO_PARENT = 3, 4
"""The descriptors of a worker's pipe."""

_OUT_OF_REACH = 20


def run(bench: Bench) -> None:
    """Ask the question."""
    bench.interleave(
        int(bench.size(7, 1)),
        {DANGAD: _first_answer, f"its parts + {ALLOWANCE} s": _parts},
    )


def _first_answer() -> Mapping[str, float]:
    """Start the server with one worker, and try to have a job done until it is."""
    with Stage() as stage:
        start = time.perf_counter()
        contenders.start_without_waiting(stage, workers=1)
        answer = boxes.answer(0, b"first")
        path = stage.path(SOCKET)
        while not os.path.exists(path):
            if time.perf_counter() - start > PATIENCE:
                raise Broken(f"dangad does not listen: {stage.output('server')}")
            time.sleep(0.001)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            stage.wait_for(partial(_connects, client, path), "dangad")
            client.sendall(boxes.request(0, b"Echo", b"first", {}))
            got = client.recv(len(answer), socket.MSG_WAITALL)
        if got != answer:
            raise Broken(f"a wrong answer: {got!r}")
        return {"first_answer": time.perf_counter() - start}


def _parts() -> Mapping[str, float]:
    """What cannot be saved: the parent's import of a reactor, and one worker's boot."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import twisted.internet.reactor"], check=True)
    reactor = time.perf_counter() - start
    worker = _worker_boot()
    return {"reactor": reactor, "worker": worker, "allowed": reactor + worker + ALLOWANCE}


def _worker_boot() -> float:
    """Start a worker as the pool does, and wait until it says Hello."""
    path = (str(ROOT), *filter(None, sys.path))
    settings = WorkerSettings(("dangad.examples", "tests.benchmarks.jobs"), path=path)
    with Stage() as stage:
        ours, theirs = os.pipe()
        theirs_in, ours_out = os.pipe()
        handed = [fcntl.fcntl(each, fcntl.F_DUPFD, _OUT_OF_REACH) for each in (theirs_in, theirs)]
        start = time.perf_counter()
        with (
            open(stage.path("worker.log"), "wb") as log,
            open(stage.path("settings"), "w+b", buffering=0) as told,
        ):
            told.write(settings.process_input())
            told.seek(0)
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", BOOTSTRAP],
                settings.process_environment(),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, handed[0], _FROM_PARENT),
                    (os.POSIX_SPAWN_DUP2, handed[1], _TO_PARENT),
                    (os.POSIX_SPAWN_DUP2, told.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
            )
        for each in (theirs, theirs_in, *handed):
            os.close(each)
        try:
            hello = os.read(ours, 2**16)
            seconds = time.perf_counter() - start
        finally:
            os.close(ours_out)
            os.close(ours)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if b"Hello" not in hello:
            raise Broken(f"the worker does not start: {stage.output('worker')}")
        return seconds


def _connects(client: socket.socket, path: str) -> bool:
    return client.connect_ex(path) == 0
