"""How long does a request wait that a new worker is started for, and what do workers share?"""

from __future__ import annotations

import socket
import time
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING

from tests.benchmarks import boxes, contenders, machine
from tests.benchmarks.contenders import SOCKET
from tests.benchmarks.harness import Bench, Measure
from tests.benchmarks.heavyjobs import MEMORY
from tests.benchmarks.processes import PATIENCE, Broken, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = {
    "start": Measure("request to first answer of a new worker", "s"),
    "isolated": Measure("jobs with a worker each, two at a time", "1/s"),
    "memory": Measure("memory of 8 workers with a model of 500 MB", "B"),
    "one": Measure("memory of one such worker", "B"),
}

FRESH, LEAN = "a new interpreter (--start fresh)", "a fork of the template (--start lean)"
PRELOADED = "a fork with the job modules (--preload)"
NUMPY = ", with NumPy"
STARTS = {FRESH: "fresh", LEAN: "lean", PRELOADED: "preloaded"}
HEAVY = ("--jobs", "tests.benchmarks.heavyjobs")
NAP = 60_000_000
"""Microseconds for which the first worker is busy: longer than anything else takes."""
MODEL = 500 * 10**6
"""Bytes of the model."""
MANY = 8
"""Workers that have it."""
ISOLATED = {FRESH: 10, LEAN: 100, PRELOADED: 300}
"""Jobs with a worker each in one round."""


def run(bench: Bench) -> None:
    """Ask the question."""
    rounds = int(bench.size(15, 1))
    modules = ("", NUMPY) if find_spec("numpy") else ("",)
    bench.interleave(
        rounds,
        {
            name + heavy: partial(_new_worker, start, *(HEAVY if heavy else ()))
            for (name, start), heavy in product(STARTS.items(), modules)
        },
    )
    bench.interleave(
        max(1, rounds // 5),
        {
            name: partial(_isolated, start, int(bench.size(ISOLATED[name], 4)))
            for name, start in STARTS.items()
        },
    )
    bench.interleave(1, {PRELOADED: partial(_memory, int(bench.size(MODEL, 10**7)))})


def _new_worker(start: str, *options: str) -> Mapping[str, float]:
    """Keep the one worker of a server busy, and have another job done."""
    with Stage() as stage:
        options = ("--start", start, "--max-workers", "2", "--drain", "0", *options)
        contenders.start_dangad(stage, *options, workers=1)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(stage.path(SOCKET))
            client.sendall(boxes.request(0, b"Nap", b"", {b"microseconds": b"%d" % NAP}))
            answer = boxes.answer(1, b"second")
            began = time.perf_counter()
            client.sendall(boxes.request(1, b"Echo", b"second", {}))
            got = client.recv(len(answer), socket.MSG_WAITALL)
            seconds = time.perf_counter() - began
        if got != answer:
            raise Broken(f"a wrong answer: {got!r}")
        return {"start": seconds}


def _isolated(start: str, number: int) -> Mapping[str, float]:
    """Have so many jobs done, each in a worker of its own."""
    with Stage() as stage:
        contenders.start_dangad(stage, "--start", start, *HEAVY, workers=2)
        began = time.perf_counter()
        _read(stage, b"ReadAlone", number)
        return {"isolated": number / (time.perf_counter() - began)}


def _memory(size: int) -> Mapping[str, float]:
    """What the workers of a server have together when the model was read, and what one has."""
    taken = {}
    for workers in (1, MANY):
        with Stage() as stage:
            pid = contenders.start_dangad(
                stage, "--preload", *HEAVY, "--worker-env", f"{MEMORY}={size}", workers=workers
            )
            _read(stage, b"Read", workers)
            taken[workers] = sum(map(machine.proportional, machine.family(pid)))
    return {"memory": taken[MANY], "one": taken[1]}


def _read(stage: Stage, command: bytes, number: int) -> None:
    """Have so many jobs done that read the model."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(stage.path(SOCKET))
        for tag in range(number):
            client.sendall(boxes.request(tag, command, b"", {}))
        received = b""
        while received.count(b"_answer") < number:
            data = client.recv(2**16)
            if not data or b"_error" in data:
                raise Broken(f"a wrong answer: {data!r}")
            received += data
