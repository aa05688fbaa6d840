"""Job types that do what no job should, served to real workers by the tests."""

import contextlib
import ctypes
import logging
import os
import signal
import stat
import subprocess
import sys
import time
import warnings
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


class WaitAnyway(Wait):
    """The same, and it goes on when the client is gone."""


class Facts(amp.Command):
    """What a worker's process looks like from inside, as JSON would say it."""

    response = [
        (b"cwd", amp.Unicode()),
        (b"path", amp.ListOf(amp.Unicode())),
        (b"variable", amp.Unicode()),
        (b"stdin", amp.Unicode()),
        (b"own_group", amp.Boolean()),
        (b"descriptors", amp.ListOf(amp.Integer())),
        (b"pythonpath", amp.Unicode()),
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


def _print_much() -> None:
    for number in range(130_000):
        print(f"line {number} ".ljust(79, "."))


def _write_to_descriptors() -> None:
    os.write(1, b"raw to one\n")
    os.write(2, b"raw to two, and no newline")


def _log() -> None:
    warnings.warn("a warning of the job", stacklevel=1)
    logging.getLogger("odd").info("an info of the job")


def _raise(error: BaseException) -> None:
    raise error


def _close_all() -> None:
    os.closerange(3, 4096)


def _close_all_and_hang() -> None:
    os.closerange(3, 4096)
    time.sleep(600)


def _write_to_pipe(data: bytes) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if fd > 2 and stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, data)
    time.sleep(600)


def _leave_child_and_exit() -> None:
    subprocess.Popen(["sleep", "600"])
    os._exit(0)


def _leave_child() -> None:
    subprocess.Popen(["sleep", "600"])


def _fork_and_return() -> None:
    os.fork()


async def _ps() -> dict[str, int]:
    return {"pid": len(await getProcessOutput("/bin/echo", (b"hi",)))}


_DEEDS: dict[str, Any] = {
    "nothing": lambda: None,
    "some time": lambda: time.sleep(0.004),
    "raise": lambda: _raise(ZeroDivisionError("by zero")),
    "oops": lambda: _raise(Oops("declared")),
    "system exit": lambda: sys.exit(0),
    "keyboard interrupt": lambda: _raise(KeyboardInterrupt()),
    "print much": _print_much,
    "descriptors": _write_to_descriptors,
    "log": _log,
    "exit 0": lambda: os._exit(0),
    "exit 3": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "close all": _close_all,
    "close all and hang": _close_all_and_hang,
    "garbage": lambda: _write_to_pipe(b"garbage" * 10),
    "foreign answer": lambda: _write_to_pipe(b"\0\5_done\0\00299\0\0"),
    "leave child and exit": _leave_child_and_exit,
    "leave child": _leave_child,
    "fork and return": _fork_and_return,
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
@job(WaitAnyway, on_disconnect="finish")
def wait(path: str, mark: str | None) -> dict[str, int]:
    """Leave a mark with the pid in it, and wait for a file, looking often."""
    if mark is not None:
        with open(f"{mark}.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(f"{mark}.new", mark)
    while not os.path.exists(path):
        time.sleep(0.005)
    return {"pid": os.getpid(), "attempt": current_job().attempt}


@job(Facts)
def facts() -> dict[str, Any]:
    """Look around."""
    return {
        "cwd": os.getcwd(),
        "path": sys.path,
        "variable": os.environ.get("ODD_VARIABLE", ""),
        "stdin": sys.stdin.read(),
        "own_group": os.getpgrp() == os.getpid(),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "pythonpath": os.environ.get("PYTHONPATH", "unset"),
    }


@job(Short)
@job(Long)
def some_bytes(size: int) -> dict[str, bytes]:
    """Answer with that many bytes."""
    return {"data": b"x" * size}
