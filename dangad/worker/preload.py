"""Imports the job modules in the template, and finds what they leave that forks cannot share.

Used by :mod:`dangad.worker.child` in a template that preloads. A fork has a copy of the memory and
shares all descriptors, but has no thread except the one that forked. So if a module has started a
thread, opened a connection or made an event loop, it works in the template alone. Then each worker
imports the modules itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from _thread import _count as thread_count  # also counts threads that threading does not know
from typing import TYPE_CHECKING, TypeVar

from dangad.host.descent import (
    PROC,
    children,
    count_threads,
    is_beginning,
    is_like_this,
    is_tracker,
    program,
)
from dangad.worker.jobtypes import import_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_T = TypeVar("_T")
_REACTOR = "twisted.internet.reactor"
_NEW_SEED_SIZE = 32
_FORK_SAFE = (1, 1, 1, 4)
"""The first version of OpenSSL whose random generator notices a fork."""
_SHARED = {
    "socket:": "a socket",
    "pipe:": "a pipe",
    "anon_inode:[eventpoll]": "an epoll descriptor, as event loops have",
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:inotify": "an inotify descriptor, as watchers of files have",
    "anon_inode:[timerfd]": "a timer descriptor",
    "anon_inode:[signalfd]": "a signal descriptor",
    "anon_inode:[pidfd]": "the descriptor of a process",
    "pidfd:": "the descriptor of a process",
    "anon_inode:": "an event descriptor",
    "/dev/nvidia": "a GPU context",
    "/dev/kfd": "a GPU context",
    "/dev/dri": "a GPU context",
    "/dev/accel": "an accelerator's context",
}
"""Descriptors that forks must not share: the beginning of the kernel's name, and what it means."""
_REACTOR_LEFT = "an installed reactor"
_REMEDY_FOR_REACTOR = "import the reactor in the functions that use it"
_REMEDY = "make this in a @dangad.worker_start function"
_MOST_NAMES = 3
_MOMENT = 0.2
"""Seconds for which child processes are given time to begin another program."""
_GLANCE = 0.005
"""Seconds between two checks whether they have begun it."""
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Unshareable(Exception):
    """Modules leave something that forks cannot share; the text names both, and a remedy."""


def preload(modules: Iterable[str]) -> None:
    """Import the job modules.

    :raises Unshareable: the process cannot be forked afterwards.
    """
    known: set[object] = set(_descriptors())
    told = []
    remedies = set()
    for name in modules:
        import_modules(name)
        found = [words for look in _LOOKS for words in look(known)]
        if found:
            told.append(f"{name} has left {', '.join(dict.fromkeys(found))}")
            remedies |= {
                _REMEDY_FOR_REACTOR if words == _REACTOR_LEFT else _REMEDY for words in found
            }
    if told:
        what = "; ".join(told)
        raise Unshareable(f"{what}, which forks cannot share; {'; '.join(sorted(remedies))}")


def reseed() -> None:
    """Make this fork draw other random numbers than the other forks.

    :mod:`random` does so by itself in each fork, and so does OpenSSL since 1.1.1d (CVE-2019-1549).
    To seed that anew takes longer than all else that a fork does before its first job.
    """
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    ssl = sys.modules.get("_ssl")
    if ssl is not None and ssl.OPENSSL_VERSION_INFO < _FORK_SAFE:
        ssl.RAND_add(os.urandom(_NEW_SEED_SIZE), float(_NEW_SEED_SIZE))


def _reactor(known: set[object]) -> Iterator[str]:
    if _new({_REACTOR} & sys.modules.keys(), known):
        known |= _descriptors()  # those of the reactor are no news
        yield _REACTOR_LEFT


def _connections(known: set[object]) -> Iterator[str]:
    for _, name in _new(sorted(_descriptors()), known):
        for start, kind in _SHARED.items():
            if name.startswith(start):
                yield kind
                break


def _processes(known: set[object]) -> Iterator[str]:
    new = _new(sorted(children()), known)
    _let_begin(new)
    if any(map(is_tracker, new)):
        yield "a resource tracker of multiprocessing"
    yield from _listed("child process", "es", [program(pid) for pid in new if not is_tracker(pid)])


def _let_begin(processes: list[int]) -> None:
    """Give those that are about to begin another program a moment to do so: it has their name."""
    ends_at = time.monotonic() + _MOMENT
    for pid in processes:
        while (is_like_this(pid) or is_beginning(pid)) and time.monotonic() < ends_at:
            time.sleep(_GLANCE)


def _threads(known: set[object]) -> Iterator[str]:
    named = threading.enumerate()[1:]
    yield from _listed("thread", "s", [each.name for each in _new(named, known)])
    if not named and count_threads() > 1 and _UNKNOWN not in known:
        if not thread_count():
            _fork_once()
        if count_threads() > 1:
            known.add(_UNKNOWN)
            yield "a thread"


def _timers(known: set[object]) -> Iterator[str]:
    if _new([each for each in _TIMERS if any(signal.getitimer(each))], known):
        yield "a timer that sends a signal"


def _new(found: Iterable[_T], known: set[object]) -> list[_T]:
    """What is found and was not known; it is known from now on."""
    new = [each for each in found if each not in known]
    known.update(new)
    return new


def _listed(noun: str, ending: str, names: list[str]) -> Iterator[str]:
    """Some things of a kind, in words, with the names of the first ones; nothing if none."""
    more = ", ..." if len(names) > _MOST_NAMES else ""
    listed = f"({', '.join(names[:_MOST_NAMES])}{more})"
    if names:
        yield f"a {noun} {listed}" if len(names) == 1 else f"{len(names)} {noun}{ending} {listed}"


_UNKNOWN = "a thread of which Python knows nothing"
_LOOKS = _reactor, _connections, _processes, _threads, _timers
"""Each yields, in words, what a fork would lack or must not share, and adds it to the known."""


def _fork_once() -> None:
    """Make a fork that ends at once: before it, libraries such as OpenBLAS end their threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about several threads
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _descriptors() -> set[tuple[int, str]]:
    """The open descriptors, each with the kernel's name for the file behind it."""
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"{PROC}/self/fd"):
            with contextlib.suppress(OSError):  # the descriptor of the list itself
                found.add((int(fd), os.readlink(f"{PROC}/self/fd/{fd}")))
    return found
