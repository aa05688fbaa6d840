"""Imports the job modules in the template, and finds what they leave that forks cannot share.

Used by :mod:`dangad.worker.child` in a template that preloads. A fork has a copy of the memory and
shares all descriptors, but has no thread except the one that forked. So if a module has started a
thread, opened a connection or made an event loop, it works in the template alone. Then each worker
imports the modules itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from _thread import _count as thread_count  # also counts threads that threading does not know
from typing import TYPE_CHECKING

from dangad.host.descent import PROC, children, count_threads
from dangad.worker.jobtypes import import_modules

if TYPE_CHECKING:
    from collections.abc import Iterable

_REACTOR = "twisted.internet.reactor"
_NEW_SEED_SIZE = 32
_SHARED = {
    "socket:": "a socket",
    "pipe:": "a pipe",
    "anon_inode:[eventpoll]": "an epoll descriptor, as event loops have",
    "anon_inode:": "an event descriptor",
    "/dev/nvidia": "a GPU context",
    "/dev/kfd": "a GPU context",
    "/dev/dri": "a GPU context",
}
"""Descriptors that forks must not share: the beginning of the kernel's name, and what it means."""


class Unshareable(Exception):
    """A module leaves something that forks cannot share; the text names both."""


def preload(modules: Iterable[str]) -> None:
    """Import the job modules.

    :raises Unshareable: the process cannot be forked afterwards.
    """
    before = _descriptors()
    for name in modules:
        import_modules(name)
        found = _what_is_left(before)
        if found:
            raise Unshareable(f"{name} has left {found}, which forks cannot share")


def reseed() -> None:
    """Make this fork draw other random numbers than the other forks.

    :mod:`random` does so by itself in each fork.
    """
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    ssl = sys.modules.get("_ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(_NEW_SEED_SIZE), float(_NEW_SEED_SIZE))


def _what_is_left(before: set[tuple[int, str]]) -> str:
    """Something that a fork would lack, or must not share, in words; empty if there is nothing."""
    if _REACTOR in sys.modules:
        return "an installed reactor (import it in the functions that use it)"
    for _, name in sorted(_descriptors() - before):
        for start, kind in _SHARED.items():
            if name.startswith(start):
                return kind
    for pid in children():
        return f"a child process ({pid})"
    if threading.active_count() > 1:
        return f"a thread ({', '.join(each.name for each in threading.enumerate()[1:])})"
    if count_threads() > 1:
        if not thread_count():
            _fork_once()
        if count_threads() > 1:
            return "a thread"
    return ""


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
