"""Job types that do a deed of :mod:`tests.crashdeeds` at a chosen moment of a job's life.

The moments of a worker's life that are no job's (its start, idleness, its end) read in a plan
of the test's what to do.
"""

import atexit
import os
import signal
import time
from typing import Any

from twisted.protocols import amp

import dangad
from dangad import current_job, job
from tests import crashdeeds


class Echo(amp.Command):
    """Answers with its argument, when the file is there, if one is named."""

    arguments = [(b"value", amp.Integer()), (b"gate", amp.Unicode(optional=True))]
    response = [(b"value", amp.Integer())]
    errors = {**dangad.ERRORS}


class Trap(amp.Integer):
    """An argument that does the deed when it is read."""

    def fromBox(
        self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: object
    ) -> None:
        """Wait at the gate, and do the deed if this is the moment."""
        _leave(objects["mark"])
        _wait(objects["gate"])
        if objects["when"] == "reading":
            crashdeeds.DEEDS[objects["how"]]()
        super().fromBox(name, strings, objects, proto)


class Crash(amp.Command):
    """Leaves a mark with the worker's pid, waits for the gate, does the deed, and answers."""

    arguments = [
        (b"when", amp.Unicode()),
        (b"how", amp.Unicode()),
        (b"mark", amp.Unicode()),
        (b"gate", amp.Unicode()),
        (b"value", Trap()),
    ]
    response = [(b"value", amp.Integer())]
    errors = {**dangad.ERRORS}


@job(Echo)
def echo(value: int, gate: str | None) -> dict[str, int]:
    """Answer."""
    if gate is not None:
        _wait(gate)
    return {"value": value}


@job(Crash, time_limit=600)
def crash(when: str, how: str, mark: str, gate: str, value: int) -> dict[str, int]:
    """Do the deed now, or as the answer is written."""
    crashdeeds.last_job = current_job().id
    match when:
        case "job":
            crashdeeds.DEEDS[how]()
        case "answer":
            _with_the_answer(how, half=True)
        case "answered":
            _with_the_answer(how, half=False)
    return {"value": value}


def _with_the_answer(how: str, half: bool) -> None:
    """Do the deed when half of the next box, or all of it, is in the pipe."""
    write = os.write

    def write_and_strike(fd: int, data: memoryview) -> int:
        os.write = write
        done = write(fd, data[: len(data) // 2] if half else data)
        crashdeeds.DEEDS[how]()
        return done + write(fd, data[done:]) if half else done

    os.write = write_and_strike  # type: ignore[assignment]  # nobody else writes meanwhile


def _leave(mark: str) -> None:
    with open(f"{mark}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{mark}.new", mark)


def _wait(gate: str) -> None:
    while not os.path.exists(gate):
        time.sleep(0.005)


@dangad.worker_start
def begin() -> None:
    """Do the deed if this is the moment, or prepare for the others that are no job's."""
    if crashdeeds.PLANS in os.environ:
        atexit.register(crashdeeds.reach, f"stop {os.getpid()}")
        signal.signal(signal.SIGUSR1, lambda *_: crashdeeds.reach(f"idle {os.getpid()}"))
        crashdeeds.reach("hello")


crashdeeds.reach("modules")
