"""Job types that do what no job should, served to real workers by the tests."""

import contextlib
import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Generator
from typing import Any

from twisted.internet import defer, task
from twisted.internet.utils import getProcessOutput
from twisted.protocols import amp

import dangad
from dangad import Blob, current_job, job


class Oops(Exception):
    """An error that the command declares."""


class Odd(amp.Command):
    """Do what its argument says, and answer with the worker's pid."""

    arguments = [(b"what", amp.Unicode()), (b"detail", amp.Unicode(optional=True))]
    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS, Oops: b"OOPS"}


class Wait(amp.Command):
    """Wait until the file is there, and answer with the worker's pid and the attempt."""

    arguments = [(b"path", amp.Unicode()), (b"mark", amp.Unicode(optional=True))]
    response = [(b"pid", amp.Integer()), (b"attempt", amp.Integer())]
    errors = {**dangad.ERRORS}


class Spoil(Wait):
    """The same, and then it removes the worker's directory, so that no job may follow."""


class Facts(amp.Command):
    """What a worker's process looks like from inside, as JSON would say it."""

    response = [
        (b"cwd", amp.Unicode()),
        (b"path", amp.ListOf(amp.Unicode())),
        (b"variable", amp.Unicode()),
        (b"stdin", amp.Unicode()),
        (b"own_group", amp.Boolean()),
        (b"own_ids", amp.Boolean()),
        (b"descriptors", amp.ListOf(amp.Integer())),
        (b"pythonpath", amp.Unicode()),
        (b"argv", amp.ListOf(amp.Unicode())),
    ]


class Short(amp.Command):
    """Answers more than one AMP value can hold."""

    arguments = [(b"size", amp.Integer())]
    response = [(b"data", amp.String())]
    errors = {**dangad.ERRORS}


class Long(amp.Command):
    """Answers as many bytes as asked."""

    arguments = [(b"size", amp.Integer())]
    response = [(b"data", Blob())]
    errors = {**dangad.ERRORS}


async def _later() -> dict[str, int]:
    from twisted.internet import reactor

    await task.deferLater(reactor, 0.01)
    return {"pid": os.getpid()}


def _deferred() -> defer.Deferred[dict[str, int]]:
    return defer.Deferred.fromCoroutine(_later())


async def _fails_later() -> dict[str, int]:
    await _later()
    raise Oops("later")


def _write_to_descriptors() -> None:
    os.write(1, b"raw to one\n")
    os.write(2, b"raw to two, and no newline")


def _log() -> None:
    warnings.warn("a warning of the job", stacklevel=1)
    logging.getLogger("odd").info("an info of the job")


def _raise(error: BaseException) -> None:
    raise error


def _close_all_and_hang() -> None:
    os.closerange(3, 4096)
    time.sleep(600)


_go = threading.Event()
_left: list[threading.Thread] = []


def _speak() -> None:
    _go.wait()
    print("spoken late")
    logging.getLogger("odd").info("logged late")


def _leave_speaker() -> None:
    _left.append(threading.Thread(target=_speak, daemon=True))
    _left[0].start()


def _let_speak_and_die() -> None:
    print("spoken in time")
    _go.set()
    _left[0].join()
    os.kill(os.getpid(), signal.SIGKILL)


async def _ps() -> dict[str, int]:
    return {"pid": len(await getProcessOutput("/bin/echo", (b"hi",)))}


_DEEDS: dict[str, Any] = {
    "nothing": lambda: None,
    "say who": lambda: print(f"I am job {current_job().id}"),
    "some time": lambda: time.sleep(0.004),
    "raise": lambda: _raise(ZeroDivisionError("by zero")),
    "oops": lambda: _raise(Oops("declared")),
    "system exit": lambda: sys.exit(0),
    "keyboard interrupt": lambda: _raise(KeyboardInterrupt()),
    "descriptors": _write_to_descriptors,
    "log": _log,
    "exit 3": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "close all and hang": _close_all_and_hang,
    "leave speaker": _leave_speaker,
    "let speak and die": _let_speak_and_die,
    "write to 4": lambda: os.write(4, b"garbage"),
}

_ANSWERS: dict[str, Any] = {
    "none": lambda: None,
    "wrong type": lambda: {"pid": "four"},
    "extra": lambda: {"pid": 4, "more": 5},
    "deferred": _deferred,
    "coroutine": _later,
    "fails later": _fails_later,
    "process in reactor": _ps,
}


@job(Odd)
def odd(what: str, detail: str | None) -> Any:
    """Do the deed, or answer in the way, that `what` names."""
    if what in _ANSWERS:
        return _ANSWERS[what]()
    _DEEDS[what]()
    return {"pid": os.getpid()}


@job(Wait)
def wait(path: str, mark: str | None) -> dict[str, int]:
    """Leave a mark with the pid in it, and wait for a file, looking often."""
    if mark is not None:
        _leave(mark)
    while not os.path.exists(path):
        time.sleep(0.005)
    return {"pid": os.getpid(), "attempt": current_job().attempt}


@job(Spoil)
def spoil(path: str, mark: str | None) -> dict[str, int]:
    """Wait, and spoil the worker."""
    answer = wait(path, mark)
    os.rmdir(os.getcwd())
    return answer


@job(Facts)
def facts() -> dict[str, Any]:
    """Look around."""
    return {
        "cwd": os.getcwd(),
        "path": sys.path,
        "variable": os.environ.get("ODD_VARIABLE", ""),
        "stdin": sys.stdin.read(),
        "own_group": os.getpgrp() == os.getpid(),
        "own_ids": threading.main_thread().native_id == os.getpid(),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "pythonpath": os.environ.get("PYTHONPATH", "unset"),
        "argv": sys.argv,
    }


@job(Short)
@job(Long)
def some_bytes(size: int) -> dict[str, bytes]:
    """Answer with that many bytes."""
    return {"data": b"x" * size}


class Endless(amp.Command):
    """Never ends by itself, in the way that its argument says; leaves a mark when it begins."""

    arguments = [(b"how", amp.Unicode()), (b"mark", amp.Unicode())]
    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


class Limited(Endless):
    """The same, for half a second at most."""


class Parts(amp.Command):
    """Yields so many chunks of so many bytes, and reports its progress as often."""

    arguments = [(b"count", amp.Integer()), (b"size", amp.Integer())]
    response = [(b"sent", amp.Integer())]
    errors = {**dangad.ERRORS}


def _clean_up(mark: str) -> None:
    try:
        while True:
            pass
    except dangad.TimeLimitExceeded:
        _leave(f"{mark}.time")
        raise
    except dangad.JobCancelled:
        _leave(f"{mark}.cancelled")
        raise


def _swallow(mark: str) -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(600)


def _block_signals(mark: str) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, range(1, signal.NSIG))
    while True:
        time.sleep(600)


def _child(mark: str) -> None:
    child = subprocess.Popen(["sleep", "600"])
    _leave(f"{mark}.child", str(child.pid))
    time.sleep(600)


async def _forever(mark: str) -> None:
    try:
        await defer.Deferred()
    finally:
        _leave(f"{mark}.cancelled")


_WAYS: dict[str, Any] = {
    "busy": _clean_up,
    "sleep": lambda mark: time.sleep(600),
    "in C": lambda mark: re.match(r"(a+)+$", "a" * 60 + "b"),
    "swallow": _swallow,
    "block signals": _block_signals,
    "child": _child,
    "asynchronous": _forever,
}


def _leave(mark: str, text: str = "") -> None:
    new = f"{mark}.{os.getpid()}.new"  # several jobs may leave the same mark at once
    with open(new, "w") as file:
        file.write(text or str(os.getpid()))
    os.rename(new, mark)


@job(Endless)
@job(Limited, time_limit=0.5)
def endless(how: str, mark: str) -> Any:
    """Go on."""
    _leave(mark)
    return _WAYS[how](mark)


@job(Parts)
def parts(count: int, size: int) -> Generator[bytes, None, dict[str, int]]:
    """Yield, and report."""
    for number in range(count):
        current_job().progress(number + 1, count, f"chunk {number}")
        yield bytes([number % 256]) * size
    return {"sent": count}


class Careful(amp.Command):
    """Yields for ever, and leaves a mark when it is told to stop."""

    arguments = [(b"mark", amp.Unicode())]
    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


@job(Careful)
def careful(mark: str) -> Generator[bytes, None, dict[str, int]]:
    """Yield, and clean up."""
    try:
        while True:
            yield bytes(100_000)
    except dangad.JobStopped as stop:
        _leave(mark, type(stop).__name__)
        raise


class Misreport(amp.Command):
    """Reports progress, or sends a part, that cannot be sent."""

    arguments = [(b"how", amp.Unicode())]
    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


@job(Misreport)
def misreport(how: str) -> dict[str, int]:
    """Try, in the way that is named."""
    report: Any = current_job().progress
    match how:
        case "surrogate":
            report(1, 2, "caf\udce9")
        case "number":
            report("one", 2)
        case "large":
            current_job().send(bytes(70_000_000))
        case "text":
            current_job().send("text")  # type: ignore[arg-type]
    return {"pid": os.getpid()}
