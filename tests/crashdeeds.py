"""What the crash-point matrix does to a worker: the standard library is enough for it.

So it can be done as early as when the interpreter starts, before anything of dangad is there.
"""

import contextlib
import ctypes
import locale
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable

PLANS = "DANGAD_CRASH_PLANS"
"""The variable with the folder where a test says which worker is to do what, and when."""

SITECUSTOMIZE = f"""
import importlib.util, os, sys
sys.modules["OpenSSL"] = None
if any(name.startswith("start: ") for name in os.listdir(os.environ[{PLANS!r}])):
    spec = importlib.util.spec_from_file_location("crashdeeds", {__file__!r})
    crashdeeds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(crashdeeds)
    crashdeeds.reach("start")
"""
"""The module that has a worker look for a plan as soon as its interpreter runs.

It also has Twisted do without TLS, to import which takes half of the time that a worker needs to
start, and the matrix starts some two hundred.
"""

FLOOD = 3000
"""Lines."""

last_job = 0
"""The id of the job that runs, or ran last."""

_write = os.write  # whatever becomes of the name


def reach(when: str) -> None:
    """Do what the first plan for this moment says, if there is one that no other worker took.

    A plan is a file whose name says when and how.
    """
    folder = os.environ.get(PLANS)  # else this is no worker
    for name in sorted(os.listdir(folder)) if folder else ():
        if name.startswith(f"{when}: "):
            try:
                os.rename(f"{folder}/{name}", f"{folder}/taken by {os.getpid()}: {name}")
            except FileNotFoundError:
                continue
            DEEDS[name.removeprefix(f"{when}: ")]()
            return


def _pipe() -> list[int]:
    """The descriptors of the pipe: those of any pipe that is not the output."""
    outputs = [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)]
    pipe = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was the folder's own
            what = os.readlink(f"/proc/self/fd/{fd}")
            if what.startswith("pipe:") and what not in outputs:
                pipe.append(int(fd))
    return pipe


def _say(data: bytes) -> None:
    for fd in _pipe():
        try:
            _write(fd, data)
        except OSError:
            continue  # it is the end to read from


def _answer(job_id: int) -> None:
    tag = b"%d 0 0 0 0" % job_id  # with a usage and marks
    _say(b"\0\5_done" + bytes([0, len(tag)]) + tag + b"\0\5value\0\x0242\0\0")


def _recurse() -> None:
    _recurse()


def _overflow() -> None:
    """Let C code recurse beyond what the stack may have."""
    resource.setrlimit(resource.RLIMIT_STACK, (2**16, resource.RLIM_INFINITY))
    sys.setrecursionlimit(10**6)
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    repr(nested)


def _exception_in_thread() -> None:
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()


def _close_pipe() -> None:
    for fd in _pipe():
        os.close(fd)


def _leave_child() -> None:
    """Exit, and leave a process that has the pipe open."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(4)


def _leave_daemon() -> None:
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.waitpid(child, 0)


def _flood() -> None:
    for number in range(FLOOD):
        print(f"line {number} ".ljust(99, "."))


def _change_everything() -> None:
    os.chdir("/")
    os.environ["CHANGED"] = "by a deed"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.umask(0o027)
    locale.setlocale(locale.LC_ALL, "POSIX")
    sys.setrecursionlimit(5000)


DEEDS: dict[str, Callable[[], object]] = {
    "exit 0": lambda: sys.exit(0),
    "exit 1": lambda: sys.exit(1),
    "os._exit": lambda: os._exit(3),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "abort": os.abort,
    "exception in a thread": _exception_in_thread,
    "RecursionError": _recurse,
    "stack overflow": _overflow,
    "MemoryError": lambda: bytearray(2**62),
    "close the pipe": _close_pipe,
    "garbage": lambda: _say(b"garbage" * 10),
    "answer twice": lambda: _answer(last_job),
    "answer another job": lambda: _answer(99999),
    "child with the pipe": _leave_child,
    "daemon": _leave_daemon,
    "block signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "flood of output": _flood,
    "change everything": _change_everything,
}
