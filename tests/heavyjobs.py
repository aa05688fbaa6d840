"""Job types that take much of their worker, served by the tests of supervision."""

import ctypes
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable

from twisted.protocols import amp

import dangad
from dangad import job

MIB = 2**20

_kept: list[bytes] = []
"""What jobs have leaked."""


class Heavy(amp.Command):
    """Take what the argument says, so much of it, and answer with the worker's pid."""

    arguments = [
        (b"what", amp.Unicode()),
        (b"amount", amp.Integer(optional=True)),
        (b"until", amp.Unicode(optional=True)),
    ]
    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


def _burn(milliseconds: int) -> None:
    end = time.process_time() + milliseconds / 1000
    while time.process_time() < end:
        pass


def _burn_elsewhere(milliseconds: int) -> None:
    program = f"import time\nwhile time.process_time() < {milliseconds / 1000}: pass"
    subprocess.run([sys.executable, "-S", "-c", program], check=True)


def _hold(mebibytes: int) -> None:
    b"x" * (mebibytes * MIB)


def _keep(mebibytes: int) -> None:
    _kept.append(b"x" * (mebibytes * MIB))


def _allocate_without_end(mebibytes: int) -> None:
    while True:
        _keep(mebibytes)


def _allocate_in_c(mebibytes: int) -> None:
    """What a library does that does not look at what malloc returns."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while True:
        ctypes.memset(libc.malloc(ctypes.c_size_t(mebibytes * MIB)), 1, mebibytes * MIB)


def _share(mebibytes: int) -> None:
    """Have much shared memory, which RLIMIT_DATA does not count."""
    memory = mmap.mmap(-1, mebibytes * MIB)
    for _ in range(mebibytes):
        memory.write(b"x" * MIB)
    time.sleep(600)


def _ask_too_much(mebibytes: int) -> None:
    bytearray(mebibytes * MIB)


def _print_and_exit(status: int) -> None:
    print("looking for the config")
    print("there is none", file=sys.stderr)
    os._exit(status)


def _crash(_: int) -> None:
    ctypes.string_at(0)


_DEEDS: dict[str, Callable[[int], None]] = {
    "nothing": lambda _: None,
    "burn": _burn,
    "burn elsewhere": _burn_elsewhere,
    "sleep": lambda milliseconds: time.sleep(milliseconds / 1000),
    "hold": _hold,
    "keep": _keep,
    "allocate without end": _allocate_without_end,
    "allocate in C": _allocate_in_c,
    "share": _share,
    "ask too much": _ask_too_much,
    "print and exit": _print_and_exit,
    "segfault": _crash,
}


@job(Heavy)
def heavy(what: str, amount: int | None, until: str | None) -> dict[str, int]:
    """Do the deed, and then wait for a file, if one is named."""
    _DEEDS[what](amount or 0)
    while until is not None and not os.path.exists(until):
        time.sleep(0.002)
    return {"pid": os.getpid()}
