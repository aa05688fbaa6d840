"""Job types that harm whatever they can reach, served beside those of `tests.historyjobs`.

What they may cost is their own worker's life, and their own answer. What one process can do to
another of the same user by a signal (SIGKILL, SIGSTOP, and every other that ends a process that
does not handle it), by ptrace, or by a write to its memory, no server can keep it from: that is
left out, and so is what jobs leave in modules and in descriptors of other jobs' own, which is
documented as theirs to keep.

Numbers that reach a client are `FOREIGN`, so that an honest one sees that they are not its own.
"""

import contextlib
import ctypes
import logging
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.protocols import amp

import dangad
from dangad import current_job, job
from dangad.wire import boxes, workerboxes
from dangad.worker.pipe import OUT_OF_REACH

FOREIGN = 666
"""What a job says of itself when it should not be heard: its progress, and parts of its result."""
_LASTING = 0.3
"""Seconds for which what a job leaves behind goes on."""
_MEMORY = 64 * 2**20


class Nothing(amp.Command):
    """Does nothing, and goes on when its client is gone: so it never costs its worker's life."""

    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


class Mischief(amp.Command):
    """Do the harm that is named; the worker should be reusable afterwards."""

    arguments = [(b"deed", amp.Unicode())]
    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


class AsyncMischief(Mischief):
    """Leave the harm that is named with the reactor."""


class Wreck(Mischief):
    """The same; it costs the worker's life."""


class Pour(amp.Command):
    """Yields so many parts of so many bytes."""

    arguments = [(b"count", amp.Integer()), (b"size", amp.Integer())]
    response = [(b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


# What is left behind.


def _tell(job: Any, pause: float = 0.002) -> None:
    """Speak as the job, and as the one that runs now, in all ways, as long as it lasts."""
    end = time.monotonic() + _LASTING
    number = b"%d" % FOREIGN
    while time.monotonic() < end:
        for each in (job, current_job()):
            with contextlib.suppress(Exception):
                each.progress(FOREIGN, FOREIGN, "left behind")
            with contextlib.suppress(Exception):
                each.send(number)
        with contextlib.suppress(Exception):
            print("printed late")
            logging.getLogger("hostile").warning("logged late")
        time.sleep(pause)


def _leave_thread(target: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=random.random() < 0.8).start()


def _leave_threads() -> None:
    for _ in range(3):
        _leave_thread(_tell, current_job())


def _spin() -> None:
    end = time.monotonic() + _LASTING
    while time.monotonic() < end:
        pass


def _leave_fork(*, detached: bool = False, deaf: bool = False) -> None:
    """Leave a fork that speaks, and then sleeps for longer than anybody waits."""
    running = current_job()
    if os.fork():
        return
    try:
        if detached:
            os.setsid()
            if os.fork():
                os._exit(0)
        if deaf:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        _tell(running)
        time.sleep(600)
    finally:
        os._exit(0)


def _leave_programs() -> None:
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["sleep", "600"], start_new_session=True)


def _raw_fork() -> None:
    """Leave a fork of which Python has not heard, so that it has kept the worker's pipe."""
    libc = ctypes.CDLL(None)
    if libc.fork() == 0:
        libc.sleep(600)
        libc._exit(0)


# Descriptors.


def _pipes() -> list[int]:
    """The worker's own descriptors: its pipe, and where it shows stacks and what is left over."""
    return [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd >= OUT_OF_REACH]


def _close(*descriptors: int) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)


def _redirect(*descriptors: int) -> None:
    """Put the null device in their place."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in descriptors:
        os.dup2(null, fd)
    os.close(null)


def _read_pipes() -> None:
    """Read what the parent has written for the worker, jobs of others perhaps."""
    for fd in _pipes():
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.set_blocking(fd, False)
                while os.read(fd, 2**16):
                    pass


def _forged() -> list[bytes]:
    """Boxes that a worker could write, of jobs that it does not have, and some that are none."""
    sent = [b"garbage" * 10, workerboxes.PONG_BOX, boxes.pack([(b"_answer", b"1")])]
    own = current_job().id
    for number in (own, own - 1, own + 1, random.randrange(1, own + 2)):
        done = workerboxes.answer_head(number, False, b"1 1 1", 0)
        failed = workerboxes.answer_head(number, True, b"1 1 1", 0)
        code = boxes.pack(boxes.error_pairs(b"JOB_FAILED", "forged"))
        news = [(b"done", b"666"), (b"total", b"666"), (b"message", b"forged")]
        sent += [
            done + boxes.pack([(b"pid", b"666")]),
            failed + code,
            workerboxes.report_head(number) + boxes.pack(news),
            workerboxes.part_head(number) + boxes.pack([(b"data", b"666")]),
            (done + code)[:-3],
        ]
    return sent


def _forge() -> None:
    """Write to the parent in the worker's name."""
    sent = _forged()
    for fd in _pipes():
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            for _ in range(random.randrange(1, 4)):
                with contextlib.suppress(OSError):
                    os.write(fd, random.choice(sent))


# Output.


def _shout(text: bytes, times: int) -> Callable[[], None]:
    def shout() -> None:
        for _ in range(times):
            os.write(random.choice((1, 2)), text)

    return shout


def _print_much(times: int) -> Callable[[], None]:
    def print_much() -> None:
        for number in range(times):
            print(f"line {number}")
            logging.getLogger("hostile").warning("line %d", number)

    return print_much


# Signals.


def siblings() -> list[int]:
    """The other workers, as far as they can be seen."""
    parent = os.getppid()
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = []
    for pid in map(int, children):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"\0dangad-worker\0"):
                found.append(pid)
    return [pid for pid in found if pid != os.getpid()]


def _signal_all(times: int, *numbers: int) -> None:
    """Send signals that dangad itself sends to its workers, as often as it never would."""
    for pid in (*siblings(), os.getpid()):
        for number in numbers:
            for _ in range(times):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


def _signal_itself() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGURG, signal.SIGWINCH):
        os.kill(os.getpid(), number)


# The state of the process.


def _change_state() -> None:
    """Change what is put back after each job."""
    os.chdir("/")
    os.umask(0o777)
    os.environ.clear()
    os.environ["TZ"] = "XXX-9"
    time.tzset()
    for number in (signal.SIGURG, signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if random.random() < 0.5 else signal.SIG_IGN)
    _block_signals()
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    sys.setrecursionlimit(200)
    sys.stdout = sys.stderr = None


class _Misfit(Exception):
    """An exception that cannot be looked at."""

    def __str__(self) -> str:
        raise RuntimeError


def _raise(kind: type[BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise kind

    return fail


def _hoard() -> None:
    """Take memory, and give it back."""
    taken = bytearray(_MEMORY)
    taken[:: 2**12] = bytes(len(taken[:: 2**12]))


# The end of the process, and what goes before.


def _exit() -> None:
    os._exit(0)


def _hang() -> None:
    time.sleep(600)


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, range(1, signal.NSIG))


def _swallow() -> None:
    """Go on, whatever happens."""
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(600)


def _in_turn(*deeds: Callable[[], object]) -> Callable[[], None]:
    def do() -> None:
        for deed in deeds:
            deed()

    return do


HARMLESS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "thread": lambda: _leave_thread(_tell, current_job(), 0.02),
    "short output": _print_much(20),
    "newlines": _shout(b"\n" * 1000, 5),
    "escapes": _shout(b"\x1b[2J\r\x9b\xff\0", 20),
    "signals to all": lambda: _signal_all(20, signal.SIGURG, signal.SIGCONT),
    "stacks of all": lambda: _signal_all(1, signal.SIGWINCH),
    "signals to itself": _signal_itself,
    "state": _change_state,
    "system exit": _raise(SystemExit),
    "keyboard interrupt": _raise(KeyboardInterrupt),
    "misfit": _raise(_Misfit),
}
"""What costs a few milliseconds and nobody's life."""
MISCHIEF: dict[str, Callable[[], object]] = {
    **HARMLESS,
    "cancelled": _raise(dangad.JobCancelled),
    "out of time": _raise(dangad.TimeLimitExceeded),
    "threads": _leave_threads,
    "many stacks": lambda: _signal_all(20, signal.SIGWINCH),
    "spinning threads": lambda: _leave_thread(_spin),
    "fork": _leave_fork,
    "deaf fork": lambda: _leave_fork(deaf=True),
    "detached fork": lambda: _leave_fork(detached=True, deaf=True),
    "raw fork": _raw_fork,
    "fork that returns": os.fork,
    "programs": _leave_programs,
    "close output": lambda: _close(0, 1, 2),
    "redirect output": lambda: _redirect(1, 2),
    "much output": _print_much(5000),
    "flood": _shout(b"x" * 4096, 500),
    "flood of newlines": _shout(b"\n" * 4096, 200),
    "memory": _hoard,
    "sleep": lambda: time.sleep(0.1),
}
"""What may cost more, the worker's life included, but need not."""
WRECKS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "exit 0": _exit,
    "exit 3": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "close pipe": lambda: _close(*_pipes()),
    "close all": lambda: os.closerange(0, 4096),
    "close pipe and hang": _in_turn(lambda: _close(*_pipes()), _hang),
    "redirect pipe": lambda: _redirect(*_pipes()),
    "read pipe": _read_pipes,
    "read pipe and hang": _in_turn(_read_pipes, _hang),
    "forge": _forge,
    "forge and hang": _in_turn(_forge, _hang),
    "fork and exit": _in_turn(lambda: _leave_fork(detached=True, deaf=True), _exit),
    "raw fork and exit": _in_turn(_raw_fork, _exit),
    "swallow": _swallow,
    "deaf": _in_turn(_block_signals, _hang),
}


@job(Nothing, on_disconnect="finish")
def nothing() -> dict[str, int]:
    """Do nothing."""
    return {"pid": os.getpid()}


@job(Mischief)
def mischief(deed: str) -> dict[str, int]:
    """Do the deed."""
    MISCHIEF[deed]()
    return {"pid": os.getpid()}


@job(AsyncMischief)
async def async_mischief(deed: str) -> dict[str, int]:
    """Leave a delayed call with the reactor, which a later such job runs."""
    from twisted.internet import reactor as _reactor
    from twisted.internet import task

    reactor: Any = _reactor
    for _ in range(3):
        reactor.callLater(0.005, _tell_once, current_job())
    await task.deferLater(reactor, 0.002)
    if deed == "fail":
        await defer.fail(ZeroDivisionError())
    return {"pid": os.getpid()}


def _tell_once(job: Any) -> None:
    for each in (job, current_job()):
        each.progress(FOREIGN, FOREIGN, "left behind")
        each.send(b"%d" % FOREIGN)


@job(Wreck, retries=1)
def wreck(deed: str) -> dict[str, int]:
    """Do the deed."""
    WRECKS[deed]()
    return {"pid": os.getpid()}


@job(Pour)
def pour(count: int, size: int) -> Generator[bytes, None, dict[str, int]]:
    """Yield."""
    for _ in range(count):
        current_job().progress(FOREIGN, FOREIGN, "poured")
        yield bytes(size)
    return {"pid": os.getpid()}
