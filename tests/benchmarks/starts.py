"""How long does a request wait that a new worker is started for?"""

from __future__ import annotations

import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import boxes, contenders
from tests.benchmarks.contenders import SOCKET
from tests.benchmarks.harness import Bench, Measure
from tests.benchmarks.processes import PATIENCE, Broken, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = {"start": Measure("request to first answer of a new worker", "s")}

FRESH, LEAN = "a new interpreter (--start fresh)", "a fork of the template (--start lean)"
NAP = 60_000_000
"""Microseconds for which the first worker is busy: longer than anything else takes."""


def run(bench: Bench) -> None:
    """Ask the question."""
    bench.interleave(
        int(bench.size(15, 1)),
        {FRESH: partial(_new_worker, "fresh"), LEAN: partial(_new_worker, "lean")},
    )


def _new_worker(start: str) -> Mapping[str, float]:
    """Keep the one worker of a server busy, and have another job done."""
    with Stage() as stage:
        contenders.start_dangad(
            stage, "--start", start, "--max-workers", "2", "--drain", "0", workers=1
        )
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
