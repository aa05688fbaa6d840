"""Job types that write down all that they do, for `tests.history` to compare with the answers.

A worker writes to a file of its own in the folder ``$DANGAD_HISTORY``, one line for each sign
of life, in one `write` each, so that what it did before it was killed is on record:
``<time> <sign> <job's name> <attempt> <outcome>``. The signs are those of
:class:`tests.history.Line`.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import time
from collections.abc import Callable, Generator
from typing import Any

from twisted.protocols import amp

import dangad
from dangad import current_job, job

_FOLDER = os.environ.get("DANGAD_HISTORY")
_STEP = 0.004
"""Seconds between two signs of life of a job that takes its time."""
STOPS = (dangad.JobCancelled, dangad.TimeLimitExceeded)
_next_token = itertools.count(1).__next__


_history = -1


@dangad.worker_start
def _begin() -> None:
    global _history
    path = os.devnull
    if _FOLDER is not None:
        path = os.path.join(_FOLDER, f"{os.getpid()}-{time.monotonic_ns()}")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    _history = os.open(path, flags, 0o600)
    _write("boot")


def _write(sign: str, name: str = "-", outcome: str = "-") -> None:
    line = f"{time.monotonic():.6f} {sign} {name} {current_job().attempt} {outcome}\n"
    os.write(_history, line.encode())


class Declared(Exception):
    """An error that the commands declare; the text is the attempt's token."""


class Quick(amp.Command):
    """Do the deed that is asked for, for so many seconds."""

    arguments = [(b"name", amp.Unicode()), (b"deed", amp.Unicode()), (b"seconds", amp.Float())]
    response = [(b"token", amp.Unicode()), (b"attempt", amp.Integer())]
    errors = {**dangad.ERRORS, Declared: b"DECLARED"}


class Fragile(Quick):
    """The same; it often kills its worker."""


class Retried(Quick):
    """The same, and it is tried again."""


class Doomed(Quick):
    """The same; it always kills its worker, so that it comes into quarantine."""


class Limited(Quick):
    """The same, within a time limit."""


class Alone(Quick):
    """The same, one at a time."""


class Pair(Quick):
    """The same, two at a time."""


class Finishing(Quick):
    """The same, and it goes on when its client is gone."""


class Parts(Quick):
    """The same, and it sends ten numbered chunks."""


def _live(name: str, seconds: float) -> None:
    """Give signs of life for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        current_job().progress(max(0, int((end - time.monotonic()) * 1000)), 0)
        time.sleep(min(_STEP, seconds))
        _write("alive", name)


def _busy(name: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _swallow(name: str, seconds: float) -> None:
    """Give signs of life for so long, whatever happens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            _live(name, end - time.monotonic())


def _clean_up(name: str, seconds: float) -> None:
    """Take a little longer when stopped."""
    try:
        _live(name, seconds)
    except STOPS:
        _live(name, 0.02)
        raise


def _die(how: Callable[[], object]) -> Callable[[str, float], None]:
    def die(name: str, seconds: float) -> None:
        _live(name, seconds)
        _write("dies", name)
        how()

    return die


def _die_first(attempts: int) -> Callable[[str, float], None]:
    """Kill the worker at the first attempts."""

    def die_first(name: str, seconds: float) -> None:
        _live(name, seconds)
        if current_job().attempt <= attempts:
            _write("dies", name)
            os.kill(os.getpid(), signal.SIGKILL)

    return die_first


def _declare(name: str, seconds: float) -> None:
    _live(name, seconds)
    raise Declared


def _divide(name: str, seconds: float) -> None:
    _live(name, seconds)
    raise ZeroDivisionError


DEEDS: dict[str, Callable[[str, float], None]] = {
    "live": _live,
    "busy": _busy,
    "swallow": _swallow,
    "clean up": _clean_up,
    "kill": _die(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "exit 0": _die(lambda: os._exit(0)),
    "exit 3": _die(lambda: os._exit(3)),
    "segfault": _die(lambda: ctypes.string_at(0)),
    "die once": _die_first(1),
    "die twice": _die_first(2),
    "declared": _declare,
    "undeclared": _divide,
}
"""What the jobs may be asked to do."""


def _look_for_twins(name: str) -> None:
    """Note it if the process of this job's attempt before still lives."""
    if _FOLDER is None:
        return
    path = os.path.join(_FOLDER, f"attempt-{name}")
    with contextlib.suppress(FileNotFoundError):
        with open(path) as file:
            before = file.read()
        if _birth(before.split()[0]) == before:
            _write("twin", name, before.split()[0])
    with open(f"{path}.new", "w") as file:
        file.write(_birth(str(os.getpid())))
    os.rename(f"{path}.new", path)


def _birth(pid: str) -> str:
    """A process's id and the time of its start; only the id if it is dead."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        if fields[0] not in "ZX":
            return f"{pid} {fields[19]}"
    return pid


@job(Quick)
@job(Fragile)
@job(Doomed, retries=1)
@job(Limited, time_limit=0.3)
@job(Alone, max_running=1)
@job(Pair, max_running=2, retries=1)
@job(Finishing, on_disconnect="finish")
def perform(name: str, deed: str, seconds: float) -> dict[str, Any]:
    """Do the deed, and write down the beginning and the end."""
    token = f"{os.getpid()}.{_next_token()}"
    _write("start", name)
    try:
        DEEDS[deed](name, seconds)
    except STOPS as stopped:
        _write("end", name, type(stopped).__name__)
        raise
    except (Declared, ZeroDivisionError) as error:
        _write("end", name, token)
        raise type(error)(token) from None
    _write("end", name, token)
    return {"token": token, "attempt": current_job().attempt}


@job(Retried, retries=2)
def perform_again(name: str, deed: str, seconds: float) -> dict[str, Any]:
    """Do the same, and look for other attempts that still live."""
    _look_for_twins(name)
    return perform(name, deed, seconds)


@job(Parts)
def perform_in_parts(
    name: str, deed: str, seconds: float
) -> Generator[bytes, None, dict[str, Any]]:
    """Do the same, and send numbers before."""
    for number in range(10):
        yield b"%d" % number
    return perform(name, deed, seconds)
